"""Alembic migrations of the job store, in order."""
