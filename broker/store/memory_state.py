"""What `MemoryStore` holds where another store has its disk."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.model import Brake, BrakeKind, Charge, GrantUse
from broker.store.cipher import KeptCall
from broker.store.epochs import Restoration, Run
from broker.store.records import AuditRecord, ClaimScope, GrantFiles, VersionRow
from broker.store.rules import KeyRow
from broker.workflow_records import Workflow, WorkflowLabel, WorkflowName


@dataclass(frozen=True, slots=True)
class Booking:
    """What one call took from one budget (grant, unit)."""

    tenant: str
    environment: str
    budget: tuple[str, str]
    at: datetime
    call_id: str
    amount: int


@dataclass(slots=True)
class MemoryState:
    """What would be on the disk. Give it to a second `MemoryStore` to play a restart, or a take-over."""

    installation: str = field(default_factory=lambda: secrets.token_hex(8))
    page_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    run: Run | None = None
    restoration: Restoration | None = None
    tenant_keys: dict[str, bytes] = field(default_factory=dict)
    calls: dict[str, KeptCall] = field(default_factory=dict)
    keys: dict[ClaimScope, tuple[KeyRow, str]] = field(default_factory=dict)
    bookings: list[Booking] = field(default_factory=list)
    versions: dict[tuple[str, str, str], VersionRow] = field(default_factory=dict)
    aliases: dict[tuple[str, str, str], str] = field(default_factory=dict)
    alias_steps: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)
    grants: dict[str, GrantFiles] = field(default_factory=dict)
    uses: dict[tuple[str, ...], GrantUse] = field(default_factory=dict)
    brakes: dict[tuple[str, BrakeKind, str], Brake] = field(default_factory=dict)
    workflows: dict[str, Workflow] = field(default_factory=dict)
    labels: dict[tuple[WorkflowName, str], WorkflowLabel] = field(default_factory=dict)
    trusted: dict[tuple[WorkflowName, bytes], datetime] = field(default_factory=dict)
    audit: list[AuditRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MemoryLedger:
    """The bookings of one tenant and environment, as a `Ledger`."""

    bookings: Sequence[Booking]

    def entries(self, charge: Charge, since: datetime) -> Iterable[tuple[datetime, int]]:
        """Iterate over (time, amount), oldest first."""
        budget = charge.grant_id, charge.limit.unit
        found = ((one.at, one.amount) for one in self.bookings if one.budget == budget and one.at > since)
        return sorted(found)

    def used(self, charge: Charge, since: datetime) -> int:
        """Sum what is in the window."""
        return sum(amount for _, amount in self.entries(charge, since))
