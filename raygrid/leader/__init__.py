"""Tier 2: the group leader queues the jobs of its group and chooses a node for each.

`election.py` decides whether this candidate leads; `dispatch.py` carries out what `core.group` decides;
`outbox.py` writes to the job store; `node_link.py` talks to one node; `news.py` tells the parents;
`actor.py` is all that knows Ray.
"""
