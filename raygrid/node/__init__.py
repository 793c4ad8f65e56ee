"""Tier 3: the node agent runs pricers in its slots and keeps their results.

`agent.py` composes the agent: `accepted.py` has the attempts that it accepted, `slots.py` the threads that run them,
`report_log.py` their reports. `attempt/` runs one attempt, `warm/` keeps warm pricers loaded, `limits/` enforces the
limits of pricers and node, `helpers/` ends what jobs leave behind. `publisher.py` stores results in packs, `cache.py`
keeps recent ones, `shared_data.py` keeps copies of shared inputs, `health.py` checks disk and blob store, `reaper.py`
cleans up after a dead agent, `leftovers.py` reports what a crash left. `actor.py` is the only module that knows Ray.
"""
