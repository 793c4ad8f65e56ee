"""Ray on the machines of a cluster: a supervisor for each machine, started and stopped by `raygrid host`."""

from raygrid.cluster.spec import HostSpec
from raygrid.cluster.start import adopt_environment, is_supervised, require_token, start_host, stop_host

__all__ = ["HostSpec", "adopt_environment", "is_supervised", "require_token", "start_host", "stop_host"]
