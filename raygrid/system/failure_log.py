"""Logging of failures that are handled by trying again."""

from __future__ import annotations

import logging

from raygrid.errors import RaygridError


def log_failure(logger: logging.Logger, error: Exception, message: str, *args: object) -> None:
    """Log an expected error (`RaygridError`) as one warning line, any other error with its traceback."""
    if isinstance(error, RaygridError):
        logger.warning(f"{message}: %s", *args, error)
    else:
        logger.error(message, *args, exc_info=error)
