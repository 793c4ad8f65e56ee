"""A grid on this machine: `raygrid up`, `raygrid.init()` and `raygrid demo` start and stop it here.

`start.py` starts a supervisor process and waits for it; `supervisor.py` owns everything that runs: the Ray nodes, the
Serve application, the actors; `grid_file.py` is how others find the grid. Ending the supervisor ends everything.
"""

from raygrid.local.grid_file import GridFile, running_grid
from raygrid.local.start import free_port, start_grid, stop_grid

__all__ = ["GridFile", "free_port", "running_grid", "start_grid", "stop_grid"]
