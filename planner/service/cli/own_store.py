"""The store of this machine, for commands that need no server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.service.store import Store


@contextmanager
def own_store() -> "Iterator[Store]":
    """The store that the settings name, closed at the end. Raises StoreError."""
    from planner.service.settings import read_settings
    from planner.service.store import open_store

    store = open_store(read_settings(os.environ).storage.database_url)
    try:
        yield store
    finally:
        store.close()
