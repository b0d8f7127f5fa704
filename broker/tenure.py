"""How long this process may act on its state: until another one has taken over.

A process that was stopped keeps every lock and knows nothing of the time that passed; so it is the store that
says, by the epoch, who may write. This module keeps the epoch alive, and notices its end: from then on
nothing is answered, started or written here any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from broker.errors import Failed
from broker.store.protocol import Store
from broker.store.records import StaleEpoch, StoreError
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)


class Tenure:
    """Beats while it lasts. `over` is set when another process has taken over."""

    def __init__(self, store: Store, pause_seconds: float) -> None:
        self.over = asyncio.Event()
        self._store, self._pause_seconds = store, pause_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._beat_for_ever(), name="tenure")

    async def close(self) -> None:
        """Stop beating; the store's own end gives the epoch up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def end(self) -> None:
        """Say that a change was refused because another process has taken over."""
        self.over.set()

    async def _beat_for_ever(self) -> None:
        while not self.over.is_set():
            try:
                await self._store.beat()
            except StaleEpoch:
                self.end()
                return
            except StoreError as error:
                log.warning("no beat", extra={"cause": str(error)})
            await asyncio.sleep(self._pause_seconds)


def taken_over() -> Failed:
    """Say that this broker may not act any more. What it knows of a call may be out of date."""
    return Failed(
        Reason.REASON_STALE_EPOCH,
        "another broker has taken over this state, this one changes nothing any more; ask that one again "
        "with the same key",
        retry_after_seconds=1.0,
    )
