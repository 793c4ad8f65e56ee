"""Seeded fault simulation: a whole grid in one process on a virtual clock, over the product's own code.

`clock.py` makes time virtual and lets processes freeze and die; `network.py` loses, delays and doubles calls;
`store.py`, `nodes.py`, `leaders.py` and `parents.py` are the parts, `clients.py` the load, `grid.py` all of it;
`faults.py` breaks them, `invariants.py` checks, `trace.py` records. `run.py` runs one seed, `pool.py` many in processes
(`worker.py`); `mutants.py` plants bugs to be found. `python -m tests.simulation` is the command. `memory_store.py` is
the job store in plain dicts, which other tests use too.
"""
