"""One attempt on a node, from its job directory to its result ZIP. `runner.py` has the steps."""
