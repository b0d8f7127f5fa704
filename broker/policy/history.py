"""Since when each grant has its present form, read from the audit's records of applied plans.

A tenant's grants are applied as a whole, so the time of the last application says nothing about one grant: a
team that applies weekly would never see a grant that nobody used for a month.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Protocol

from broker.store.records import AuditRecord

APPLIED = "grants.applied"


class AuditSource(Protocol):
    """Where the records come from: a store."""

    def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain from a sequence on."""


class GrantHistory:
    """Reads the chain once, and later only what came after."""

    def __init__(self, source: AuditSource) -> None:
        self._source = source
        self._seen = 0
        self._times: dict[str, dict[str, datetime]] = defaultdict(dict)
        self._reading = asyncio.Lock()

    async def applied(self, tenant: str) -> Mapping[str, datetime]:
        """Say, by id, when each grant of a tenant was added or last changed.

        Raises:
            StoreError: The audit cannot be read.
        """
        async with self._reading:
            async for record in self._source.audit_records(self._seen):
                self._take(record)
                self._seen = record.sequence
        return dict(self._times[tenant])

    def _take(self, record: AuditRecord) -> None:
        if APPLIED not in record.payload:  # one record in thousands; the others need not be parsed
            return
        said = json.loads(record.payload)
        if said["kind"] != APPLIED:
            return
        times = self._times[said["tenant"]]
        for change in said["details"].get("changes", ()):
            kind, _, grant_id = str(change).partition(" ")
            if kind == "REMOVE":
                times.pop(grant_id, None)
            else:
                times[grant_id] = datetime.fromisoformat(said["at"])
