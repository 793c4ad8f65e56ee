"""Choosing groups for jobs, and telling which groups are lost: what parents decide."""
