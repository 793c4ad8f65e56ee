"""A grid on this machine; `raygrid up`, `raygrid.init()` and `raygrid demo` start and stop it here.

`start.py` starts a supervisor process and waits for it. `supervisor.py` starts the Ray nodes, the Serve application and
the actors, and they end with it. The file of `system/grid_file.py` shows other processes that the grid runs,
`settings/started_with.py` compares its settings with theirs, and `system/lock.py` excludes a second grid of the name.
"""

from raygrid.local.port import free_port
from raygrid.local.start import require_same, start_grid, stop_grid, stop_supervisor
from raygrid.system.grid_file import GridFile, running_grid

__all__ = ["GridFile", "free_port", "require_same", "running_grid", "start_grid", "stop_grid", "stop_supervisor"]
