"""`python -m security.fuzzers NAME …`: run one fuzzer under atheris until its time is over or it finds something.

The options after the name are those of libFuzzer. It exits with 0 only if nothing was found.
"""

from __future__ import annotations

import logging
import sys

import atheris

from security.fuzzers import target

INSTRUMENTED = ["raygrid", "python_multipart"]


def main() -> None:
    """Instrument the code under test and fuzz it."""
    name, *options = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=INSTRUMENTED):
        found = target.load(name)
    atheris.Setup([name, *options], found.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
