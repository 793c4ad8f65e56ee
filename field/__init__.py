"""Problems that people who run executables on grids have reported, tried on a real grid: `make field`.

`cases/` holds one file for each family of problems, `programs/` the small programs that they run. The cases use only
what a user has: the command `raygrid`, HTTP, and the Python client in processes of its own. This package does not
import raygrid, so that it can try another copy of it (`--raygrid DIRECTORY`).
"""
