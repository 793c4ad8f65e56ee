"""Tier 2: the group leader queues the jobs of its group and chooses a node for each.

`election.py` decides whether this candidate leads; `dispatch.py` carries out what `core.group` decides;
`outbox.py` writes to the job store; `node_conversations.py` follows the group's nodes, `node_conversation.py` calls
one; `drains.py` reads drains; `change_feed.py` holds the changes that parents poll; `service.py` answers the parents'
calls; only `actor.py` knows Ray.
"""
