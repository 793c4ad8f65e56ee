"""Failure drills: break a part of a running grid on purpose, under load, and check that nothing is lost.

`scenarios.py` defines the faults and when a grid has recovered; `drill.py` runs them. `load.py` makes the load;
`recorder.py` and `history.py` record what clients saw; `report.py` has the results. `injector.py` is the interface to
faults; `ray_faults.py` (a separate process, which imports Ray) and `machine_faults.py` inject them.
"""
