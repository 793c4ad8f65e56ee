"""The state machine of a group: what its leader decides. `state.py` is its entrance; events in, commands out."""
