"""The figures: one file and one function each; each returns a matplotlib Figure."""
