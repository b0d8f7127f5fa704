"""Stage 3, claim: take the idempotency key, or answer with what it did before.

    the first attempt            a retry with the same key and the same request gets
    succeeded                    the same answer, marked as replayed
    still running                waits; the same answer when it comes, or IN_PROGRESS
    failed before it ran         a new attempt
    a read that failed in passing  a new attempt
    definite error               the same error
    in doubt                     waits while it is being resolved; then what was found, or IN_DOUBT
    found not to have happened   a new attempt
    past its retention           KEY_EXPIRED

The earlier answer goes to the same agent and subject whatever grants, labels and aliases say now.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from broker.doubts import Doubts
from broker.errors import Failed, Refused
from broker.model import Answer, Call, CallRecord, CallState
from broker.request import Request
from broker.store.protocol import Store
from broker.store.records import Claim, ClaimScope
from broker.trail import Trail
from broker.workflows import WorkflowBook, name_of
from toolcrib.v1.reasons_pb2 import Reason

NEW_SINCE = "toolcrib-new-since"
# A caller without a deadline is told IN_PROGRESS after this long.
MAX_WAIT_SECONDS = 30.0
# Time kept of the caller's deadline to say so in: more than the path keeps for what stalls, or that would
# answer first.
ANSWER_SECONDS, ANSWER_SHARE = 0.4, 0.4


@dataclass(frozen=True, slots=True)
class Claimed:
    """What stage 3 found: a key that is ours now (or none was needed), or the earlier answer."""

    scope: ClaimScope | None
    attempt: int = 1
    earlier_answer: Answer | None = None


NO_KEY = Claimed(None)


class Claimer:
    """Takes keys and replays what they did."""

    def __init__(self, store: Store, workflows: WorkflowBook, doubts: Doubts | None = None) -> None:
        self._store = store
        self._workflows = workflows
        self._doubts = doubts or Doubts()

    def __call__(self, call: Call, request: Request, trail: Trail) -> AbstractAsyncContextManager[Claimed]:
        """Hold the call's key; it is given back at the end unless reserve made it durable.

        Raises:
            Refused: KEY_REUSED, KEY_EXPIRED, STATE_RESTORED or IN_PROGRESS.
            Failed: What the first call failed with; IN_DOUBT.
        """
        return self._hold(call, request, trail) if call.key else nullcontext(NO_KEY)

    @asynccontextmanager
    async def _hold(self, call: Call, request: Request, trail: Trail) -> AsyncIterator[Claimed]:
        scope = ClaimScope(
            call.caller.tenant, call.environment, call.caller.name, call.contract.method, call.key
        )
        claim = await self._take(scope, call, request, trail)
        if claim.earlier is not None:
            # Recorded with the replay, before it leaves: an old answer may be new to this workflow.
            trail.imprint = self._workflows.reading(name_of(call), claim.earlier)
            yield Claimed(scope, earlier_answer=replay(claim.earlier, call))
            return
        trail.attempt = claim.attempt
        try:
            yield Claimed(scope, claim.attempt)
        finally:
            await self._store.release(scope, call.call_id)

    async def _take(self, scope: ClaimScope, call: Call, request: Request, trail: Trail) -> Claim:
        """Return a claim that is won, or whose earlier call has ended."""
        now = time.monotonic()
        kept = min(ANSWER_SECONDS, (request.deadline - now) * ANSWER_SHARE)
        give_up = min(request.deadline - kept, now + MAX_WAIT_SECONDS)
        while True:
            claim = await self._store.claim(scope, call.digest, call.call_id, call.new_since)
            if claim.won:
                return claim
            earlier = _earlier(claim)
            if earlier.fingerprint != call.digest:
                raise Refused(
                    Reason.REASON_KEY_REUSED,
                    "the idempotency key was used for another request; use a new key for a new write",
                    details={"earlier_call_id": earlier.call_id},
                )
            if earlier.state is not CallState.CLAIMED and earlier.subject != call.caller.subject:
                raise Refused(
                    Reason.REASON_KEY_REUSED,
                    "the idempotency key was used on behalf of another subject; use a new key",
                )
            trail.earlier_call_id = earlier.call_id
            if earlier.state is CallState.IN_DOUBT and await self._is_resolved(earlier, give_up):
                continue
            if earlier.state not in (CallState.CLAIMED, CallState.RESERVED, CallState.DISPATCHED):
                return claim
            await self._wait(earlier, give_up)
            trail.earlier_call_id = ""

    async def _is_resolved(self, earlier: CallRecord, give_up: float) -> bool:
        """Wait for a call that is being resolved; False when nobody is at it, or the time is up."""
        return await self._doubts.wait(earlier.call_id, give_up - time.monotonic())

    async def _wait(self, earlier: CallRecord, give_up: float) -> None:
        remaining = give_up - time.monotonic()
        if remaining <= 0:
            raise Refused(
                Reason.REASON_IN_PROGRESS,
                "the first call with this key is still running; ask again with the same key",
                retry_after_seconds=1.0,
                details={"earlier_call_id": earlier.call_id},
            )
        await self._store.wait_for_change(earlier.call_id, remaining)


def replay(earlier: CallRecord, call: Call) -> Answer:
    """Turn an ended call back into its answer, or into the error that it ended with.

    Raises:
        Failed: What the first call failed with; IN_DOUBT.
    """
    details = {**earlier.failure, "replayed": "true"}
    if earlier.state is CallState.SUCCEEDED:
        if earlier.result is None:
            raise Failed(
                Reason.REASON_RESULT_INVALID,
                "the write happened, and its answer is not there: it was found without one, or erased",
                details={**details, "effect": "APPLIED"},
            )
        return Answer(
            earlier.call_id,
            call.contract,
            earlier.result,
            earlier.labels,
            replayed=True,
            first_call_time=earlier.started,
            artefacts=earlier.artefacts,
        )
    if earlier.state is CallState.NEEDS_HUMAN:
        raise Failed(Reason.REASON_IN_DOUBT, earlier.message, details={**details, "needs_human": "true"})
    if earlier.state is CallState.IN_DOUBT:
        raise Failed(Reason.REASON_IN_DOUBT, earlier.message, retry_after_seconds=2.0, details=details)
    raise Failed(earlier.reason, earlier.message, details=details)


def _earlier(claim: Claim) -> CallRecord:
    """Return the call that holds the key of a claim that is not won.

    Raises:
        Refused: KEY_EXPIRED or STATE_RESTORED.
    """
    if claim.expired:
        raise Refused(
            Reason.REASON_KEY_EXPIRED,
            "the key is past its retention and is never run again; look the write up at its "
            "target before you use a new key",
        )
    if claim.restored:
        raise Refused(
            Reason.REASON_STATE_RESTORED,
            "the broker's state was restored from a backup, and this key may have been used since that was "
            f"made; where it is new, send metadata {NEW_SINCE} with the time at which you made it",
        )
    assert claim.earlier is not None, "a claim that is not won names the earlier call"
    return claim.earlier
