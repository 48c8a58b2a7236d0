"""The command ``acon``: parse, call, print. Everything heavy is imported inside the commands."""

# Importing a module of commands registers them, in the order in which the help lists them.
from acon_analysis.cli import networks, runs, replacing, findings  # noqa: F401, I001
from acon_analysis.cli.application import app, main

__all__ = ["app", "main"]
