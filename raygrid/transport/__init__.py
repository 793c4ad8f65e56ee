"""Calls between the tiers: their declarations and their transport.

`ports.py` declares the calls, `calls.py` derives links, actor methods and fakes from the declarations, `batching.py`
joins items into batches. Over Ray: `actors.py` finds and makes actors, `actor_link.py` calls one, `nodes.py` and
`groups.py` find those of a group and of the grid, `racks.py` reads Ray's list of nodes. Beside Ray: `direct_server.py`,
`direct_client.py` and `wire.py`.
"""
