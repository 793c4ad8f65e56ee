"""A grid on this machine: `raygrid up`, `raygrid.init()` and `raygrid demo` start and stop it here.

`start.py` starts a supervisor process and waits for it; `supervisor.py` owns everything that runs: the Ray nodes, the
Serve application, the actors; `grid_file.py` is how others find the grid, `started_with.py` how they tell whether it is
the one they want, and `lock.py` keeps it the only one. Ending the supervisor ends everything.
"""

from raygrid.local.port import free_port
from raygrid.local.start import require_same, start_grid, stop_grid, stop_supervisor
from raygrid.system.grid_file import GridFile, running_grid

__all__ = ["GridFile", "free_port", "require_same", "running_grid", "start_grid", "stop_grid", "stop_supervisor"]
