"""Calls between the tiers: what they are (`ports.py`), and how they travel.

Over Ray actors (`links.py`) and, faster, over direct connections (`direct_server.py`, `direct_client.py`, `wire.py`).
"""
