"""The command line: thin, over the client library."""

from raygrid.cli.app import app

__all__ = ["app"]
