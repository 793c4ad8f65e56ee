"""The bare loop of workload 3: `bare_loop.py EXAMPLE FILE...` prices file after file, as the example does.

It prints `loaded`, and begins when its standard input ends.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Price every file; each output overwrites the one before."""
    sys.path.insert(0, sys.argv[1])
    price = importlib.import_module("price")
    print("loaded", flush=True)
    sys.stdin.read()
    sys.exit(max(price.main([path]) for path in sys.argv[2:]))


if __name__ == "__main__":
    main()
