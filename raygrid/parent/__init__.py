"""Tier 1: the parent takes jobs over HTTP, stores them, chooses a group for each, and returns results.

`service.py` is the parent without HTTP, `http/` its HTTP interface. `groups.py` calls the leaders, `results.py` reads
results, `sweeper.py` moves jobs of lost groups, `housekeeping.py` removes old data, and only `ingress.py` uses Ray.
Parents keep no state: any number of them share the job store.
"""
