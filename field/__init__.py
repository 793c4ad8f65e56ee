"""Tries problems that users of other grids have reported, on a real grid: `make field`.

`cases/` has one file for each family of problems, `programs/` the small programs that they run. The cases use only what
a user has: the command `raygrid`, HTTP, and the Python client in separate processes. This package does not import
raygrid, so that it can try another copy of it (`--raygrid DIRECTORY`).
"""
