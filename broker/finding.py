"""What was found out about a call in doubt, and the record and audit event that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from broker.model import Artefact, CallRecord, CallState
from broker.store.records import AuditEvent
from toolcrib.v1.reasons_pb2 import Reason

RESOLVER = "toolcrib-resolver"
"""The name under which the broker itself asks; no certificate may carry it (stages/authenticate.py)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a call.

    Attributes:
        state: SUCCEEDED, FAILED (it did not happen) or NEEDS_HUMAN.
        message: How it was found out, for people.
        result: The write's answer, where it happened and is known; canonical bytes.
        artefacts: The files that came with it.
        attempt: Higher than the call's own where it was sent again.
        facts: For the audit, beside the state.
    """

    state: CallState
    message: str
    result: bytes | None = None
    labels: tuple[str, ...] = ()
    attempt: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)
    artefacts: tuple[Artefact, ...] = ()


def needs_human(why: str) -> Finding:
    """Hand a call to a person."""
    return Finding(
        CallState.NEEDS_HUMAN,
        f"it is not known whether the write happened, and {why}: a person has to look at the target and say "
        "so with `toolcrib calls resolve`. Do not use another key",
    )


def resolved_record(call: CallRecord, finding: Finding) -> CallRecord:
    """Make the record of a call that was found out about."""
    reasons = {
        CallState.SUCCEEDED: Reason.REASON_UNSPECIFIED,
        CallState.FAILED: Reason.REASON_SANDBOX_UNAVAILABLE,
        CallState.NEEDS_HUMAN: Reason.REASON_IN_DOUBT,
    }
    return replace(
        call,
        state=finding.state,
        reason=reasons[finding.state],
        message=finding.message,
        failure={},
        result=finding.result,
        labels=finding.labels,
        artefacts=finding.artefacts,
        attempt=max(call.attempt, finding.attempt),
        ended=datetime.now(UTC),
    )


def resolved_event(record: CallRecord, finding: Finding, actor: str = RESOLVER) -> AuditEvent:
    """Make the audit event of a resolution."""
    return AuditEvent(
        "call.resolved",
        record.tenant,
        record.environment,
        datetime.now(UTC),
        record.call_id,
        actor=actor,
        details={
            "is": record.state.value,
            "method": record.method,
            "agent": record.agent,
            "digest": record.fingerprint,
            **finding.facts,
        },
    )
