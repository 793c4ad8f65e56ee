"""Failure drills: break a part of a running grid on purpose, under load, and see that nothing is lost.

`history.py` records what clients saw and decides over it; `load.py` makes the load, through `entries.py`; `injector.py`
is what a drill asks for; `ray_faults.py` (a process of its own, which knows Ray) and `machine_faults.py` carry it out
on the target machines; `scenarios.py` defines what is broken and what counts as recovered, `drill.py` runs it,
`report.py` counts.
"""
