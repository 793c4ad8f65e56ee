"""Limits of a node and of its pricers: wall time, memory, output and disk, and what is killed when one is reached."""
