"""What may follow what in a record, whatever keeps it.

    (nothing) → RESERVED → DISPATCHED → SUCCEEDED | FAILED | IN_DOUBT
    (nothing) → DISPATCHED, a read that may run as soon as it is reserved
                IN_DOUBT → SUCCEEDED | FAILED (it did not happen, the key is free) | NEEDS_HUMAN, resolved
                NEEDS_HUMAN → SUCCEEDED | FAILED, resolved by a person
                RESERVED | DISPATCHED → FAILED, given back: nothing ran, the key is free
    (nothing) → REFUSED
    RESERVED | DISPATCHED of an earlier epoch → FAILED (the key is free) | IN_DOUBT, adopted

A key is free where its call was given back or did not happen; otherwise it holds, and past the retention it
is a tombstone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.model import CallRecord, CallState, GrantUse, LeaseRecord, LiveLease, Mark, SandboxRecord
from broker.store.records import (
    AliasElsewhere,
    AliasStep,
    AuditEvent,
    BaseChanged,
    Claim,
    ClaimScope,
    StoreError,
    VersionExists,
    VersionRow,
)
from tools.contract import Effect

MAX_STEPS = 100
"""How far back an alias can go."""
RUNNING = (CallState.RESERVED, CallState.DISPATCHED)
UNFINISHED = (CallState.CLAIMED, *RUNNING)
ENDS = (CallState.SUCCEEDED, CallState.FAILED, CallState.IN_DOUBT)
# What a doubtful call may become.
RESOLUTIONS = {
    CallState.IN_DOUBT: (CallState.SUCCEEDED, CallState.FAILED, CallState.NEEDS_HUMAN),
    CallState.NEEDS_HUMAN: (CallState.SUCCEEDED, CallState.FAILED),
}


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key that was reserved once.

    Attributes:
        free: True when its call was given back, or did not happen.
        epoch: The run that changed it last.
    """

    attempt: int
    claimed: datetime
    free: bool
    epoch: int = 0


def judge_key(key: KeyRow | None, now: datetime, retention: timedelta) -> Claim:
    """Say whether a key that nobody in this process holds can be had; `earlier` is for the store to add."""
    if key is None:
        return Claim(won=True)
    if key.free:
        return Claim(won=True, attempt=key.attempt + 1)
    return Claim(won=False, attempt=key.attempt, expired=now - key.claimed >= retention)


def check_attempt(key: KeyRow | None, call: CallRecord) -> None:
    """See that a call may take a key, by the record alone: the guard behind the claims in memory.

    Raises:
        StoreError: The key is held, or the attempt does not follow the one before.
    """
    expected = 1 if key is None else key.attempt + 1
    if (key is not None and not key.free) or call.attempt != expected:
        raise StoreError(f"call {call.call_id}: its key is not free for attempt {call.attempt}")


def scope_of(call: CallRecord) -> ClaimScope | None:
    """Name the key that a call holds, if it has one."""
    if not call.key:
        return None
    return ClaimScope(call.tenant, call.environment, call.agent, call.method, call.key)


def check_new(call: CallRecord, state: CallState, scope: ClaimScope | None) -> None:
    """See that a new record is in the state that its commit is for, and under its own key.

    Raises:
        StoreError: It is not.
    """
    if call.state is not state:
        raise StoreError(f"call {call.call_id}: is {call.state}, and this commits only {state}")
    if scope is not None and scope != scope_of(call):
        raise StoreError(f"call {call.call_id}: the key to be reserved is another call's")


def check_reserved(call: CallRecord, scope: ClaimScope | None) -> None:
    """See that a reservation is one: RESERVED, or a read whose intent to run is committed with it.

    Raises:
        StoreError: It is not.
    """
    begins = call.state is CallState.DISPATCHED and call.effect is Effect.READ and not call.leases
    check_new(call, CallState.DISPATCHED if begins else CallState.RESERVED, scope)


def check_state(call_id: str, found: CallState | None, allowed: Sequence[CallState]) -> None:
    """See that a stored call is in a state that the change starts from.

    Raises:
        StoreError: It is not, or there is no such call.
    """
    if found is None:
        raise StoreError(f"call {call_id}: there is no such call")
    if found not in allowed:
        raise StoreError(f"call {call_id}: is {found}, and this starts only from {' or '.join(allowed)}")


def end_call(stored: CallRecord | None, call: CallRecord, ends: Sequence[CallState]) -> CallRecord:
    """Make the record of an ended call: what it came to from `call`, what it is from `stored`.

    Raises:
        StoreError: There is no such call in this tenant and environment, or `call` is no such end.
    """
    if stored is None or (stored.tenant, stored.environment) != (call.tenant, call.environment):
        raise StoreError(f"call {call.call_id}: there is no such call")
    if call.state not in ends:
        raise StoreError(f"call {call.call_id}: {call.state} is no end of it")
    return replace(
        call,
        agent=stored.agent,
        subject=stored.subject,
        method=stored.method,
        key=stored.key,
        fingerprint=stored.fingerprint,
        attempt=stored.attempt,
        epoch=stored.epoch,
        workflow=stored.workflow,
        leases=merge_leases(stored.leases, call.leases),
        sandboxes=merge_sandboxes(stored.sandboxes, call.sandboxes),
        marks=merge_marks(stored.marks, call.marks),
    )


def resolve_call(stored: CallRecord | None, call: CallRecord) -> CallRecord:
    """Make the record of a doubtful call that was resolved. Attempts made while it was in doubt count.

    Raises:
        StoreError: There is no such call in this tenant and environment, it is not in doubt, or `call` is no
            resolution of it.
    """
    check_state(call.call_id, stored.state if stored else None, tuple(RESOLUTIONS))
    assert stored is not None, "a call with a state is there"
    resolved = end_call(stored, call, RESOLUTIONS[stored.state])
    return replace(resolved, attempt=max(stored.attempt, call.attempt))


def merge_sandboxes(
    stored: Sequence[SandboxRecord], given: Sequence[SandboxRecord]
) -> tuple[SandboxRecord, ...]:
    """Take what is given of each container; one that the store knows is never forgotten."""
    known = {one.container_id: one for one in (*stored, *given)}
    return tuple(known.values())


def merge_leases(stored: Sequence[LeaseRecord], given: Sequence[LeaseRecord]) -> tuple[LeaseRecord, ...]:
    """Add leases that the store does not know; of one that it knows, it alone knows the end."""
    known = {lease.lease_id for lease in stored}
    return (*stored, *(lease for lease in given if lease.lease_id not in known))


def merge_marks(stored: Sequence[Mark], given: Sequence[Mark]) -> tuple[Mark, ...]:
    """Add marks, in the order of `Mark`; one that was set stays."""
    return tuple(mark for mark in Mark if mark in stored or mark in given)


def find_new_ends(stored: CallRecord, ended: CallRecord) -> Sequence[AuditEvent]:
    """Name the ends that come with leases of which nothing was known: each is recorded once, here or later.

    A credential that was ended before its call was dispatched is first written down when it is dead already.
    """
    known = {lease.lease_id for lease in stored.leases}
    return [
        make_end_event(ended.tenant, ended.environment, ended.call_id, lease)
        for lease in ended.leases
        if lease.lease_id not in known and lease.confirmed_dead is not None
    ]


def make_end_event(tenant: str, environment: str, call_id: str, lease: LeaseRecord) -> AuditEvent:
    """Say in the audit that a lease's end was confirmed: see `Store.lease_ended`."""
    assert lease.confirmed_dead is not None, "only an end that was confirmed is recorded"
    details = {"lease": lease.lease_id, "accessor": lease.accessor, "credential": lease.credential}
    return AuditEvent("lease.ended", tenant, environment, lease.confirmed_dead, call_id, details=details)


def list_live(calls: Iterable[CallRecord]) -> Sequence[LiveLease]:
    """List the leases of some calls whose end is not confirmed, oldest first."""
    live = [LiveLease(call, lease) for call in calls for lease in call.leases if lease.confirmed_dead is None]
    return sorted(live, key=lambda one: (one.lease.minted, one.call.call_id))


def count_use(found: GrantUse | None, call: CallRecord) -> GrantUse:
    """Count that a call's grant allowed it."""
    if found is None:
        return GrantUse(call.grant_id, call.environment, call.agent, call.method, 1, call.started)
    return replace(found, calls=found.calls + 1, last=max(found.last, call.started))


def amend_call(stored: CallRecord | None, call: CallRecord) -> CallRecord:
    """Put what was known only after the end into an ended call's record.

    Raises:
        StoreError: There is no such call in this tenant and environment, or it has not ended.
    """
    if stored is None or (stored.tenant, stored.environment) != (call.tenant, call.environment):
        raise StoreError(f"call {call.call_id}: there is no such call")
    if stored.state in UNFINISHED:
        raise StoreError(f"call {call.call_id}: is {stored.state}; only an ended call can be amended")
    sandboxes = merge_sandboxes(stored.sandboxes, call.sandboxes)
    marks = merge_marks(stored.marks, call.marks)
    return replace(stored, stages=call.stages, sandboxes=sandboxes, tool_log=call.tool_log, marks=marks)


def check_same_digest(found: VersionRow, row: VersionRow) -> None:
    """See that a version which is registered again is the same one.

    Raises:
        VersionExists: It has another digest.
    """
    if found.digest != row.digest:
        raise VersionExists(f"{row.bundle} {row.version}: is registered with other content")


def check_version(found: VersionRow | None, bundle: str, version: str) -> VersionRow:
    """See that a version is there.

    Raises:
        StoreError: It is not.
    """
    if found is None:
        raise StoreError(f"{bundle} {version}: there is no such version")
    return found


def review(found: VersionRow, row: VersionRow) -> VersionRow:
    """Take over what a review says, and nothing else.

    Raises:
        VersionExists: The review is of another content.
    """
    check_same_digest(found, row)
    return replace(
        found, state=row.state, reviewed_by=row.reviewed_by, reviewed=row.reviewed, comment=row.comment
    )


def check_base(in_force: str, base_digest: str) -> None:
    """See that grants are still those that a plan was made from.

    Raises:
        BaseChanged: They are not.
    """
    if in_force != base_digest:
        raise BaseChanged("the grants changed since the plan was made; make a new plan")


def check_step(steps: Sequence[str], step: AliasStep) -> None:
    """See that an alias goes back the one step that was asked for: somebody may have moved it meanwhile.

    Args:
        steps: The versions that it came by, newest first.
        step: What was asked for.

    Raises:
        AliasElsewhere: Its steps are others.
    """
    if list(steps[:2]) != [step.left, step.reached]:
        raise AliasElsewhere(f"alias {step.alias} of {step.bundle} does not name {step.left} any more")
