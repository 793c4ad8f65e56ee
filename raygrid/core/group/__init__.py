"""The state machine of a group: the decisions of its leader. Start reading at `state.py`."""
