"""Sandboxes: what pricers see of the machine, and what keeps them from harming the grid and each other."""
