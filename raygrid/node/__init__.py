"""Tier 3: the node agent runs pricers with bounded concurrency and keeps their results.

`agent.py` accepts attempts and reports their ends; `runner.py` runs one, `spawn.py` starts its pricer; `watchdog.py`
holds it to its limits, with `processes.py` to find and kill process trees; `reaper.py` cleans up after a dead agent;
`workspace.py` owns the job directories, `spares.py` those that serve again; `result.py` makes the ZIP, a small one with
`small_zip.py`; `publisher.py` stores results in packs; `cache.py` keeps them hot;
`shared_data.py` keeps local copies of shared inputs; `health.py` looks after disk and blob store; `actor.py` is all
that knows Ray.
"""
