"""Processes that jobs leave behind, such as wine's server: which may serve later jobs, and when they end."""
