"""What the documentation adds to Sphinx, and the pages that it writes."""
