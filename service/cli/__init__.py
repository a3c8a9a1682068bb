"""The command line: a client of the REST API, and the way to bring the stack up."""

from service.cli.main import main

__all__ = ["main"]
