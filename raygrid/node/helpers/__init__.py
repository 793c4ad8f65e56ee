"""Helper processes, which jobs leave behind (wine's server, for one): which later jobs may use them, and their end."""
