"""The ``whit`` command: what it says and prints for people."""

from whit.cli.app import app, main

__all__ = ["app", "main"]
