"""Measurements of the grid beside what a user would pick instead: `make bench`, or `python -m bench`.

`workloads/` says what is measured, `contenders/` who competes, `goals.py` what is to be reached. The scripts
`store.py`, `uplinks.py` and `wakeups.py` answer narrower questions and are run by themselves.
"""
