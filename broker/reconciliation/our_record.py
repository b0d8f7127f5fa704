"""Reads our own chain as happenings to calls and their leases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from broker.store.records import AuditRecord

LEASE_ENDED, ADOPTED = "lease.ended", "call.adopted"
# A bundle's vetting reads secrets as a call does (broker/vetting.py).
OPENED = frozenset({"call.reserved", "vetting.began"})
FAILED = frozenset({"call.failed", "vetting.failed"})
ENDS = frozenset({"call.succeeded", "vetting.ended", ADOPTED}) | FAILED
AFTER_MINT = frozenset(
    {"IN_DOUBT", "OUTPUT_TOO_LARGE", "RESULT_INVALID", "SECRET_IN_RESULT", "TOOL_CRASHED", "TOOL_FAILED"}
)
"""Reasons of calls whose tool ran: every credential was there, and the record names each."""
_ID_DIGITS = slice(1, 13)


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A call was reserved: from now on credentials may be minted for it."""

    label: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OurLease:
    """A lease as a call's end names it."""

    lease_id: str
    accessor: str
    engine: str
    role: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call's end, with every lease that there was for it.

    Attributes:
        failed: It had no answer.
        adopted: Another run of the broker ended it, as the one before could not.
        reason: Why it failed.
        label: Of the call, when it was opened.
    """

    call_id: str
    sequence: int
    at: datetime
    leases: tuple[OurLease, ...]
    failed: bool
    adopted: bool
    reason: str = ""
    label: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_have_given_up(self) -> bool:
        """It can have made tokens that it does not name: its mint failed half way."""
        return self.failed and self.reason not in AFTER_MINT


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A lease's end was confirmed."""

    call_id: str
    sequence: int
    at: datetime
    accessor: str


OurHappening = CallOpened | CallEnded | LeaseEnded


def read_record(record: AuditRecord) -> tuple[datetime, OurHappening | None]:
    """Read when a record was written, and what it says about leases; most say nothing."""
    said = json.loads(record.payload)
    at, kind = datetime.fromisoformat(said["at"]), said["kind"]
    call_id, details = said["call_id"], said["details"]
    if kind in OPENED:
        places = {name: str(said[name]) for name in ("call_id", "tenant", "environment")}
        return at, CallOpened({**places, "digest": str(details.get("digest", ""))})
    if kind in ENDS:
        leases = tuple(_lease(one) for one in details.get("leases", ()))
        reason = str(details.get("reason", ""))
        return at, CallEnded(call_id, record.sequence, at, leases, kind in FAILED, kind == ADOPTED, reason)
    if kind == LEASE_ENDED:
        return at, LeaseEnded(call_id, record.sequence, at, str(details["accessor"]))
    return at, None


def started(call_id: str) -> datetime | None:
    """Read from a call's id when it came (see broker/ids.py); None where it is not one of ours."""
    try:
        return datetime.fromtimestamp(int(call_id[_ID_DIGITS], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _lease(said: Mapping[str, Any]) -> OurLease:
    return OurLease(
        str(said["lease"]), str(said["accessor"]), str(said.get("engine", "")), str(said.get("role", ""))
    )
