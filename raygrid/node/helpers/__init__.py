"""Helper processes that jobs leave behind, such as wine's server: which of them later jobs may use, and their end."""
