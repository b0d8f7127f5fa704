"""What the broker does when its session at Vault was lost, opened again, or lost its supervisor.

1. The calls that have credentials are told and marked: Vault ended those with the session.
2. Log and audit say so; an event that cannot be written changes nothing else.

That no new call gets a credential meanwhile is the session's own doing (credentials/session.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from broker.store.protocol import Store
from broker.store.records import AuditEvent, StoreError

log = logging.getLogger(__name__)

REASON = "the credentials of this call are gone: Vault ended the broker's session"


class Running(Protocol):
    """The calls on their way."""

    def tell_running(self, reason: str) -> int:
        """Tell those that have credentials that these are gone; return how many were told."""


class SessionWatch:
    """Hears what becomes of the session.

    Attributes:
        running: The calls; None while the broker starts and there are none.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock
        self._writing: set[asyncio.Task[None]] = set()
        self.running: Running | None = None

    def lost(self) -> None:
        """A session ended by itself."""
        told = self.running.tell_running(REASON) if self.running is not None else 0
        log.error("session lost", extra={"cause": f"{told} calls were told that their credentials are gone"})
        self._write("session.lost", calls_told=told)

    def opened(self) -> None:
        """There is a session, the first one or another one."""
        log.info("session opened")
        self._write("session.opened")

    def supervisor_died(self, reason: str) -> None:
        """What keeps the session alive was replaced; the session lives."""
        log.error("supervisor replaced", extra={"cause": reason})
        self._write("session.supervisor_replaced", reason=reason)

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _write(self, kind: str, **details: object) -> None:
        event = AuditEvent(kind, "", "", self._clock(), details=details)
        task = asyncio.ensure_future(self._append(event))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _append(self, event: AuditEvent) -> None:
        try:
            await self._store.append_audit(event)
        except StoreError as error:
            log.warning("not in the audit", extra={"cause": f"{event.kind}: {error}"})
