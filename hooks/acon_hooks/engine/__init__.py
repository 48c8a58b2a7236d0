"""The engine: data in, hooks and function modes, edits of a network and their effect."""
