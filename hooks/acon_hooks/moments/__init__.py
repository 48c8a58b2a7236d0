"""Moments of what goes into and comes out of activation layers, gathered during a capture."""
