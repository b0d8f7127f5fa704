"""What is done when a secret turned up in what a tool gave: the call is marked, its leases end, it is told.

Rules:
1. The leases end now, before the answer is recorded: whoever saw the secret has nothing of it. What is not
   confirmed stays owed like any other end. A static secret does not end; the event says whose to rotate.
2. The audit gets one event a credential and channel, never the secret. An event that cannot be written
   changes nothing of the call: the marks stand in its record and in the event of its end, which have to be.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from broker.debts import Debts
from broker.model import Mark
from broker.outlast import outlast
from broker.redaction import Found
from broker.stages.mint import end_leases
from broker.store.records import AuditEvent, StoreError
from broker.trail import Trail

log = logging.getLogger(__name__)

CHANNELS = {Mark.SECRET_IN_RESULT: "result", Mark.SECRET_IN_LOG: "log", Mark.SECRET_IN_ERROR: "error"}


class AuditLog(Protocol):
    """Where events go."""

    async def append_audit(self, event: AuditEvent) -> None:
        """Append one event durably; raises `StoreError`."""


class LeakAlarm:
    """Marks calls that leaked, ends their leases and tells the audit."""

    def __init__(self, audit: AuditLog, debts: Debts) -> None:
        self._audit = audit
        self._debts = debts

    async def sound(self, trail: Trail, mark: Mark, found: Found) -> None:
        """Do what a find asks for; nothing where nothing was found."""
        if not found:
            return
        if mark not in trail.marks:
            trail.marks.append(mark)
        await outlast(self._act(trail, CHANNELS[mark], sorted(found)))

    async def _act(self, trail: Trail, channel: str, credentials: list[str]) -> None:
        await asyncio.gather(end_leases(trail, self._debts), self._tell(trail, channel, credentials))

    async def _tell(self, trail: Trail, channel: str, credentials: list[str]) -> None:
        for credential in credentials:
            cause = f'the secret of "{credential}" in the tool\'s {channel}'
            log.warning("secret leaked", extra={"call_id": trail.call_id, "cause": cause})
            try:
                await self._audit.append_audit(
                    trail.event("secret.leaked", credential=credential, channel=channel)
                )
            except StoreError as error:
                log.warning("leak not in the audit", extra={"call_id": trail.call_id, "cause": str(error)})
