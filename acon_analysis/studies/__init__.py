"""Experiments behind the documentation's results."""
