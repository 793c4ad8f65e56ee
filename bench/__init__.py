"""Measurements of the grid and its alternatives: `make bench`, or `python -m bench`.

`workloads/` has the workloads, `contenders/` the programs that are compared, `goals.py` the goals. The scripts
`store.py`, `uplinks.py`, `wakeups.py` and `node.py` answer narrower questions and are run separately.
"""
