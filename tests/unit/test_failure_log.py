"""Failures that are handled by trying again are logged once, with a traceback only if they are unexpected."""

import logging

import pytest

from raygrid.errors import UnavailableError
from raygrid.system.failure_log import log_failure

logger = logging.getLogger("raygrid.test")


def test_an_expected_failure_is_one_warning_line(caplog: pytest.LogCaptureFixture) -> None:
    """The error's message ends the line, and there is no traceback."""
    log_failure(logger, UnavailableError("no answer"), "group %s: cannot scan; trying again", "rack-a")
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage() == "group rack-a: cannot scan; trying again: no answer"


def test_an_unexpected_failure_is_an_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The record carries the exception."""
    error = KeyError("n1")
    log_failure(logger, error, "group %s: cannot scan; trying again", "rack-a")
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error
