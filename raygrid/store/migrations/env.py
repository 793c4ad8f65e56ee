"""Alembic requires this file; raygrid runs its migrations through `raygrid.store.migrate` instead."""
