"""Captured runs: read, compared, verified."""
