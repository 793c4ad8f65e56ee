"""The eighteen attacks of the security review of the grid, by the names that they have here."""

EIGHTEEN = {
    "read-grid-file": "read the grid's secret file",
    "read-environ:agent": "read the agent's environment",
    "read-command-line:agent": "read the agent's command line",
    "open-memory:agent": "open the agent's memory",
    "trace:agent": "trace the agent",
    "signal:agent": "signal the agent",
    "take-descriptor:agent": "take a descriptor out of the agent",
    "write-state-directory": "write outside the job directory",
    "write-shared-memory": "write to /dev/shm",
    "write-tmp": "write to /tmp",
    "write-job-directory": "write to the job directory",
    "hard-link-secret": "link the secret file into the job directory",
    "connect-tcp": "connect over TCP on loopback",
    "send-udp": "send over UDP",
    "connect-sockets": "connect to the grid's Unix sockets by path",
    "memory-file": "make a file in memory",
    "new-user-namespace": "make a user namespace",
    "raise-priority": "raise the own priority",
}
