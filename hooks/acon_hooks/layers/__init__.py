"""Which layers of a model can be watched, found by structure, and what is known of them."""
