"""Tier 3: the node agent runs pricers with bounded concurrency and keeps their results.

`agent.py` accepts attempts and reports their ends; `runner.py` runs one; `processes.py` watches and kills process
trees; `workspace.py` owns the job directories; `result.py` makes the ZIP; `publisher.py` stores results in packs;
`cache.py` keeps them hot; `shared_data.py` keeps local copies of shared inputs; `actor.py` is all that knows Ray.
"""
