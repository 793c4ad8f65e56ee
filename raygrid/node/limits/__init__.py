"""Limits of a node and its pricers: wall time, memory, output and disk, and which pricer is killed at a limit."""
