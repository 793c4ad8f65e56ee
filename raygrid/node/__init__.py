"""Tier 3: the node agent runs pricers in its slots and keeps their results.

`agent.py` composes the agent: `accepted.py` has the attempts that it accepted, `slots.py` the threads that run them,
`report_log.py` their reports. `attempt/` runs one attempt, `warm/` keeps warm pricers loaded, `limits/` enforces limits
of pricers and node, `helpers/` ends processes that jobs leave behind. `publisher.py` stores results in packs,
`cache.py` keeps recent results, `shared_data.py` keeps copies of shared inputs, `health.py` checks disk and blob store,
`reaper.py` cleans up after a dead agent, `leftovers.py` reports attempts that a crash ended. Only `actor.py` knows Ray.
"""
