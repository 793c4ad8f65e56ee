"""The command line, a thin layer over the client library."""

from raygrid.cli.app import app

__all__ = ["app"]
