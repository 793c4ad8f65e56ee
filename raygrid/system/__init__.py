"""This machine and its processes: /proc, cgroups, locks, signals, guards, logs, and the parts of every supervisor.

Code here imports neither Ray nor a tier.
"""
