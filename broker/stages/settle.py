"""Stage 11, settle: the completion is durable before the answer leaves."""

from __future__ import annotations

from dataclasses import replace

from broker.model import Answer, CallState
from broker.store.protocol import Store
from broker.trail import Trail


class Settler:
    """Commits what a call came to; its leases' ends are owed from here on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, answer: Answer, trail: Trail) -> None:
        """Record the answer, so that its key replays it from now on."""
        record = replace(trail.record(CallState.SUCCEEDED), result=answer.result, labels=answer.labels)
        trail.completion = record
        await self._store.complete(record, trail.event("call.succeeded"))
        trail.settled = True
