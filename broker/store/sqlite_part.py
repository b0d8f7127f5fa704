"""What the parts of the SQLite store share."""

from __future__ import annotations

from broker.store.database import Database
from broker.store.options import StoreOptions
from broker.store.paging import PageTokens
from broker.store.protocol import Epoch


class SqlitePart:
    """The database, and what this run of the broker is in it."""

    def __init__(self, database: Database, epoch: Epoch, page_key: bytes, options: StoreOptions) -> None:
        self.epoch = epoch
        self._database = database
        self._options = options
        self._tokens = PageTokens(page_key)
