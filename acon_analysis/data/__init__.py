"""Images with names: where they come from, and how they become a network's input."""
