"""A grid on this machine: `raygrid up`, `raygrid.init()` and `raygrid demo` start and stop it here.

`start.py` starts a supervisor process and waits for it; `supervisor.py` owns everything that runs: the Ray nodes, the
Serve application, the actors. Others find the grid by the file of `system/grid_file.py` and compare it with what they
want by `settings/started_with.py`; `system/lock.py` keeps it the only one. Ending the supervisor ends everything.
"""

from raygrid.local.port import free_port
from raygrid.local.start import require_same, start_grid, stop_grid, stop_supervisor
from raygrid.system.grid_file import GridFile, running_grid

__all__ = ["GridFile", "free_port", "require_same", "running_grid", "start_grid", "stop_grid", "stop_supervisor"]
