"""This machine and its processes: /proc, cgroups, locks, signals, guards, logs, and the base of every supervisor.

Nothing here knows of jobs or of Ray.
"""
