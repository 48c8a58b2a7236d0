"""Channels replaced by straight lines: fitted, folded into their neighbours, and what that does."""
