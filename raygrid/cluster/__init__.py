"""Ray on the machines of a cluster: `raygrid host` starts and stops a supervisor on each machine."""

from raygrid.cluster.spec import HostSpec
from raygrid.cluster.start import adopt_environment, is_supervised, require_token, start_host, stop_host

__all__ = ["HostSpec", "adopt_environment", "is_supervised", "require_token", "start_host", "stop_host"]
