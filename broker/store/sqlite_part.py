"""What the parts of the SQLite store share."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime

from broker.store.cipher import Sealing
from broker.store.database import Database
from broker.store.epochs import Restoration, check_epoch
from broker.store.options import StoreOptions
from broker.store.paging import PageTokens
from broker.store.records import Epoch


@dataclass(frozen=True, slots=True)
class Begun:
    """What a new run reads of the installation."""

    epoch: Epoch
    page_key: bytes = field(repr=False)
    restoration: Restoration | None


class SqlitePart:
    """The database, and what this run of the broker is in it.

    Attributes:
        restoration: What the last restore left, if there was one.
    """

    def __init__(self, database: Database, begun: Begun, options: StoreOptions) -> None:
        self.epoch = begun.epoch
        self.restoration = begun.restoration
        self._database = database
        self._options = options
        self._sealing = Sealing(options.cipher)
        self._tokens = PageTokens(begun.page_key)

    @property
    def restored_at(self) -> datetime | None:
        """When the state was restored from a backup last."""
        return self.restoration.at if self.restoration else None

    async def check_epoch(self) -> None:
        """See that this process may still write.

        Raises:
            StaleEpoch: Another process has taken over.
        """
        await self._database.read(self._check_epoch, sees_late=False)

    def _check_epoch(self, connection: sqlite3.Connection) -> None:
        check_epoch(connection, self.epoch.number)
