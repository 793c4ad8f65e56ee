"""The QuantLib example as a warm pricer, for workload 3: `warm_price.py EXAMPLE`."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Serve jobs until the node has no more."""
    sys.path.insert(0, sys.argv.pop(1))
    price = importlib.import_module("price")
    importlib.import_module("raygrid.pricer").serve(lambda job: price.main([str(job.input)]))


if __name__ == "__main__":
    main()
