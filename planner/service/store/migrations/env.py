"""Alembic runs this: migrate over the connection that `open_store` passes in."""

from alembic import context
from sqlalchemy import Connection

connection = context.config.attributes["connection"]
if not isinstance(connection, Connection):
    raise TypeError("migrations run through planner.service.store.open_store")
# The connection is already in a transaction that serialises openers; Alembic opens no other.
context.configure(connection=connection, target_metadata=None, transactional_ddl=False)
context.run_migrations()
