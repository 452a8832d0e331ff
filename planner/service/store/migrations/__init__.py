"""Alembic migrations, run by `planner.service.store.open_store`."""
