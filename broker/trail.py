"""Stage 0, record: everything that became of one call, whatever became of it.

Rules:
1. What is refused after authenticate is recorded too; what cannot be recorded does not run.
2. Each stage boundary passes one hook: trace, timing, and the tests' failure points hang there.
3. A trail never holds arguments, results or secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from broker.connections import summarize_connections
from broker.errors import CallError, Failed, Refused
from broker.ids import make_call_id
from broker.model import (
    Answer,
    Brake,
    Call,
    Caller,
    CallRecord,
    CallState,
    Grant,
    LeaseRecord,
    Mark,
    SandboxRecord,
    StageTime,
)
from broker.outlast import outlast
from broker.request import Request
from broker.store.protocol import Store
from broker.store.records import AuditEvent, StaleEpoch, StoreError
from broker.tenure import taken_over
from broker.workflow_records import Imprint
from sandboxes.egress.records import ConnectionRecord, keep_connections
from toolcrib.v1.reasons_pb2 import Reason

# What a caller chose or a tool said may be long; a record keeps this much of it.
MAX_METHOD, MAX_MESSAGE = 512, 2000
# An answer that is late already waits this much longer to hear whether this process may still give one.
TENURE_SECONDS = 0.25

log = logging.getLogger(__name__)

Boundary = Callable[[str, str], Awaitable[None]]
"""Called with (stage, call id) before each stage; whatever it raises ends the call there."""


async def pass_boundary(stage: str, call_id: str) -> None:
    """The boundary of production: nothing happens there."""


class Trail:
    """What is known of one call so far.

    Attributes:
        resolves: The call in doubt that this one, of the broker itself, is about; empty for all others.
        earlier_call_id: The call that this one replays or waits for; empty when it is a first one.
        committed: True once a write is about to run: from then on nothing cancels it.
        ran: True once the tool may have run.
        completion: The record of the answer, once there is one, durable or not.
        answer: The answer, once there is one; it may leave once `settled`.
        patience: Bounds how long whoever waits for the answer waits; None: nobody does.
        behind: True where the completion is written behind the answer.
        settled: True once the answer is durable, or may leave before it is.
        recorded: True once the store has an end for this call.
        marks: What was noticed about the call and has to be looked into.
        failure: What the call was recorded as having failed with, once it was.
        sandboxes_now: Tells what is known of the call's sandboxes; nothing before there are any.
        ending: The end of the sandbox, where the answer need not wait for it.
        removed: What was cleaned out of the result, a line a field.
        stopped_by: The operator's brake that stopped the call; None: none did.
        tell: Tells the tool that runs that it may stop early, and why; None while there is none.
        imprint: What the answer, or a replay, leaves on its workflow; durable before it may leave.
        connections: What the tool reached, or tried to; known once its way out is closed.
        connections_dropped: How many more there were that were not told one by one.
    """

    imprint: Imprint | None = None
    removed: tuple[str, ...] = ()
    connections: tuple[ConnectionRecord, ...] = ()
    connections_dropped: int = 0

    def __init__(self, method: str, boundary: Boundary) -> None:
        self.call_id = make_call_id()
        self.method = method[:MAX_METHOD]
        self.started = datetime.now(UTC)
        self.caller: Caller | None = None
        self.environment = ""
        self.call: Call | None = None
        self.grant: Grant | None = None
        self.attempt = 1
        self.epoch = 0
        self.resolves = ""
        self.earlier_call_id = ""
        self.committed = False
        self.ran = False
        self.completion: CallRecord | None = None
        self.answer: Answer | None = None
        self.patience: asyncio.Timeout | None = None
        self.behind = False
        self.settled = False
        self.recorded = False
        self.leases: list[LeaseRecord] = []
        self.sandboxes_now: Callable[[], Sequence[SandboxRecord]] = tuple
        self.ending: asyncio.Task[None] | None = None
        self.tool_log = ""
        self.marks: list[Mark] = []
        self.failure: CallError | None = None
        self.stopped_by: Brake | None = None
        self.tell: Callable[[str], None] | None = None
        self._boundary = boundary
        self._began = time.monotonic_ns()
        self._passed: list[tuple[str, int]] = []

    async def at(self, stage: str) -> None:
        """Pass the boundary before a stage."""
        self._passed.append((stage, time.monotonic_ns()))
        if self._boundary is not pass_boundary:
            await self._boundary(stage, self.call_id)

    async def see_sandboxes_end(self) -> None:
        """Wait for the end of a sandbox that goes on beside the call."""
        if self.ending is not None:
            await asyncio.wait((self.ending,))

    def answer_by(self, when: float) -> None:
        """Let whoever waits for the answer wait until then, on the monotonic clock, and no longer."""
        if self.patience is not None and when < math.inf:
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                left = when - time.monotonic()
                self.patience.reschedule(asyncio.get_running_loop().time() + left)

    @property
    def stages(self) -> tuple[StageTime, ...]:
        """The stages so far; the last one lasts until now."""
        times, end = [], time.monotonic_ns()
        for stage, begun in reversed(self._passed):
            times.append(StageTime(stage, (begun - self._began) // 1000, (end - begun) // 1000))
            end = begun
        return tuple(reversed(times))

    def record(self, state: CallState, error: CallError | None = None) -> CallRecord:
        """Say what the store should know now."""
        caller, call = self.caller, self.call
        assert caller is not None, "a call is recorded only after authenticate"
        connections, dropped = keep_connections(self.connections)
        return CallRecord(
            call_id=self.call_id,
            tenant=caller.tenant,
            environment=self.environment,
            agent=caller.name,
            subject=caller.subject,
            method=self.method,
            tool_version=call.version.version if call else "",
            effect=call.contract.effect if call else None,
            key=call.key if call else "",
            fingerprint=call.digest if call else "",
            attempt=self.attempt,
            epoch=self.epoch,
            state=state,
            started=self.started,
            ended=None if state in (CallState.RESERVED, CallState.DISPATCHED) else datetime.now(UTC),
            reason=error.reason if error else Reason.REASON_UNSPECIFIED,
            message=error.message[:MAX_MESSAGE] if error else "",
            failure={name: value[:MAX_MESSAGE] for name, value in error.details.items()} if error else {},
            grant_id=self.grant.grant_id if self.grant else "",
            request=call.canonical if call and call.is_write else None,
            stages=self.stages,
            leases=tuple(self.leases),
            sandboxes=tuple(self.sandboxes_now()),
            tool_log=self.tool_log,
            marks=tuple(mark for mark in Mark if mark in self.marks) if self.marks else (),
            removed=self.removed,
            workflow=call.workflow if call else "",
            connections=connections,
            connections_dropped=dropped + self.connections_dropped,
        )

    def event(self, kind: str, error: CallError | None = None, **details: object) -> AuditEvent:
        """Say what the audit should know now."""
        caller = self.caller
        assert caller is not None, "a call is recorded only after authenticate"
        facts: dict[str, object] = {"method": self.method, "agent": caller.name, **details}
        if self.call is not None:
            facts |= {"digest": self.call.digest, "tool_version": self.call.version.version}
        if error is not None:
            facts["reason"] = error.reason_name
        optional = {
            "subject": caller.subject,
            "resolves": self.resolves,
            "grant": self.grant.grant_id if self.grant else "",
            "leases": [lease.facts() for lease in self.leases],
            "marks": [mark.value for mark in Mark if mark in self.marks] if self.marks else [],
            "removed": list(self.removed),
            "connections": summarize_connections(self.connections, self.connections_dropped),
        }
        facts |= {name: fact for name, fact in optional.items() if fact}
        return AuditEvent(
            kind=kind,
            tenant=caller.tenant,
            environment=self.environment,
            at=datetime.now(UTC),
            call_id=self.call_id,
            actor=caller.identity,
            details=facts,
        )


class Recorder:
    """Opens a trail for each request and sees to it that its end is in the store."""

    def __init__(
        self,
        store: Store,
        note: Callable[[Imprint | None], None],
        boundary: Boundary = pass_boundary,
        on_stale: Callable[[], None] = lambda: None,
        on_connections: Callable[[Sequence[ConnectionRecord]], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            store: Where calls are recorded.
            note: Told what a replay left on its workflow, once that is durable.
            boundary: Passed before each stage.
            on_stale: Called when the store says that another process has taken over.
            on_connections: Told at the end of a call what its tool connected to.
        """
        self._store = store
        self._note = note
        self._boundary = boundary
        self._on_stale = on_stale
        self._on_connections = on_connections

    def begin(self, request: Request) -> Trail:
        """Make the trail of a request that just arrived."""
        return self.begin_own(request.method)

    def begin_own(self, method: str) -> Trail:
        """Make the trail of a call that the broker itself makes."""
        trail = Trail(method, self._boundary)
        trail.epoch = self._store.epoch.number
        return trail

    async def is_current(self, seconds: float = TENURE_SECONDS) -> bool:
        """Ask the store whether this process may still write; one that does not say in time is believed."""
        beat = asyncio.ensure_future(self._store.beat())
        await asyncio.wait((beat,), timeout=min(seconds, TENURE_SECONDS))
        if not beat.done():
            beat.add_done_callback(lambda late: late.cancelled() or late.exception())
            return True
        if isinstance(beat.exception(), StaleEpoch):
            self._on_stale()
            return False
        return True

    @asynccontextmanager
    async def open(self, trail: Trail) -> AsyncIterator[Trail]:
        """Hold the record of one call; what ends it without a record of its own is recorded here.

        Raises:
            Failed: RECORD_UNAVAILABLE, the store cannot be written; STALE_EPOCH.
        """
        try:
            try:
                yield trail
                if trail.earlier_call_id:
                    await outlast(self._note_replay(trail, None))
                elif trail.recorded and (trail.leases or trail.call is None or trail.call.is_write):
                    await self._amend(trail.record(CallState.SUCCEEDED))
            except CallError as error:
                await outlast(self._record_end(trail, error))
                raise
            except StoreError:
                raise
            except Exception:
                if not trail.recorded:
                    await self._record_end(trail, _unexpected(trail))
                raise
        except StoreError as error:
            raise self._unavailable(error) from error
        finally:
            self._on_connections(trail.connections)

    def _unavailable(self, error: StoreError) -> Failed:
        if isinstance(error, StaleEpoch):
            self._on_stale()
            return taken_over()
        return Failed(
            Reason.REASON_RECORD_UNAVAILABLE,
            f"the call cannot be recorded ({error}); nothing more is run. Retry with the same key",
            retry_after_seconds=1.0,
        )

    async def _record_end(self, trail: Trail, error: CallError) -> None:
        if trail.caller is None:
            return  # refusals before authentication are counted, not written
        if trail.recorded:
            await self._amend(trail.record(CallState.FAILED, error))
        elif trail.earlier_call_id:
            await self._note_replay(trail, error)
        else:
            assert isinstance(error, Refused), "a failure is recorded by the stage that allowed it"
            await self._store.refuse(
                trail.record(CallState.REFUSED, error), trail.event("call.refused", error)
            )

    async def _amend(self, record: CallRecord) -> None:
        """Add what was known only after the end; the end itself is durable and is told in any case."""
        try:
            await self._store.amend(record)
        except StoreError as error:
            log.warning("record not amended", extra={"call_id": record.call_id, "cause": str(error)})

    async def _note_replay(self, trail: Trail, error: CallError | None) -> None:
        event = trail.event("call.replayed", error, earlier_call=trail.earlier_call_id)
        await self._store.append_audit(event, trail.imprint)
        self._note(trail.imprint)


def _unexpected(trail: Trail) -> Refused:
    """Name a fault of the broker before anything was reserved."""
    return Refused(Reason.REASON_UNSPECIFIED, f"the broker failed; see its log for {trail.call_id}")
