"""What the broker asks of its state, whatever keeps it.

Rules:
1. Tenant and environment come first in every key; a method that takes a tenant sees nothing of another.
2. A method returns when its effect is durable, or raises and nothing changed. A caller that is cancelled
   while a change is on its way to the disk gets its outcome first, and the cancellation at its next
   await: it must know what it holds.
3. Every change, a claim and a release too, checks in the same transaction that its epoch is the newest one;
   an older one raises `StaleEpoch`. Expiry only says when another process may begin the next.
4. Audit records are chained in the transaction of the change that they record.
5. A call's request, result, artefacts and tool log are sealed, where the store has a cipher, before a change
   begins. What was erased reads as None, an erased log as "(erased)"; erased artefacts are not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from broker.model import (
    Brake,
    CallRecord,
    CallState,
    Charge,
    GrantUse,
    LeaseRecord,
    LiveLease,
    SandboxRecord,
)

T = TypeVar("T")


class StoreError(Exception):
    """The state cannot be read or written. Nothing changed."""


class StaleEpoch(StoreError):
    """Another process has taken over since; this one may not change anything any more."""


class StoreBusy(StoreError):
    """Another process runs on this state; its epoch has not expired. Stop it, or wait until it has.

    Attributes:
        remaining_seconds: When its epoch expires, unless it says until then that it lives.
    """

    def __init__(self, message: str, remaining_seconds: float) -> None:
        super().__init__(message)
        self.remaining_seconds = remaining_seconds


class BudgetExhausted(Exception):
    """A charge does not fit into its window. Nothing was reserved.

    Attributes:
        charge: The charge that did not fit.
        used: What the window holds already.
        retry_after_seconds: When enough of it will have left the window; 0 where waiting cannot help.
    """

    def __init__(self, charge: Charge, used: int, retry_after_seconds: float) -> None:
        super().__init__(f"{charge.grant_id}: {used} of {charge.limit.limit} {charge.limit.unit} are used")
        self.charge, self.used, self.retry_after_seconds = charge, used, retry_after_seconds


class VersionExists(Exception):
    """The version is registered with another digest. Nothing changed."""


class BaseChanged(Exception):
    """The grants are no longer those that the plan was made from. Nothing changed."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run of one broker process on this store.

    Attributes:
        installation: Random id made with the store; labels containers.
        number: Grows by one at each start.
    """

    installation: str
    number: int


@dataclass(frozen=True, slots=True)
class ClaimScope:
    """What one idempotency key is unique within."""

    tenant: str
    environment: str
    agent: str
    method: str
    key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What `claim` found.

    Attributes:
        won: True when the key is ours now; then `attempt` counts from 1 and `earlier` is None.
        earlier: The call that holds the key, finished or not. For one that is still before its reservation
            only `call_id`, `fingerprint` and state CLAIMED are meaningful.
        expired: The key is past its retention; it is never run again.
        restored: The key is unknown, but the state was restored from a backup so lately that it may have been
            used since the backup was made.
    """

    won: bool
    attempt: int = 1
    earlier: CallRecord | None = None
    expired: bool = False
    restored: bool = False


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision to be recorded. The store adds sequence, chain hash and key id.

    Attributes:
        kind: For example "call.refused", "call.reserved", "call.completed", "grants.applied".
        details: JSON-ready values; never arguments, results or secrets.
    """

    kind: str
    tenant: str
    environment: str
    at: datetime
    call_id: str = ""
    actor: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One link of the chain as it is stored. `payload` is canonical JSON; `hash` covers it and `previous`."""

    sequence: int
    schema_version: int
    key_id: str
    payload: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A registered version of a bundle. `state` is REGISTERED, USABLE or REJECTED."""

    tenant: str
    bundle: str
    version: str
    digest: str
    state: str
    descriptor_set: bytes
    manifest_yaml: str
    image_id: str
    registered_by: str
    registered: datetime
    reviewed_by: str = ""
    reviewed: datetime | None = None
    comment: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantFiles:
    """The grant files of a tenant as they were applied. An unknown tenant has none and an empty digest."""

    files: Mapping[str, str]
    digest: str
    applied: datetime | None = None
    applied_by: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `next_token` is empty on the last page."""

    items: Sequence[T]
    next_token: str = ""


Latest = Callable[[], Sequence[SandboxRecord]]
"""Tells what is known of a call's sandboxes now; any thread may ask."""


class Store(Protocol):
    """Calls, claims, budgets, leases, versions, grants and audit of one installation."""

    epoch: Epoch

    @property
    def is_tenured(self) -> bool:
        """True while the last beat is so young that, by the clocks, nobody can have taken over."""

    async def close(self) -> None:
        """Give everything back. Pending changes are durable before it returns."""

    # --- calls -------------------------------------------------------------------------------------------
    async def claim(
        self, scope: ClaimScope, fingerprint: str, call_id: str, new_since: datetime | None = None
    ) -> Claim:
        """Take a key, or find who has it. A win holds until `release`, `reserve` or the process's death.

        `new_since` is the caller's word that the key was first used after that moment; it counts only while
        unknown keys are refused after a restore.

        Attempts count on when the call before under this key was given back, or did not happen. `earlier` has
        its request, result and log only where it has ended within the retention.
        """

    async def release(self, scope: ClaimScope, call_id: str) -> None:
        """Give an unreserved key back. Does nothing when `call_id` does not hold it."""

    async def wait_for_change(self, call_id: str, timeout_seconds: float) -> None:
        """Return when the call reached another state in this process, or when the time is up.

        Returns at once for a call that has ended or is unknown by now: what the caller saw is out of date.
        """

    async def reserve(
        self, call: CallRecord, scope: ClaimScope | None, charges: Sequence[Charge], audit: AuditEvent
    ) -> None:
        """Commit, in one transaction, the call as RESERVED, its key, its charges and the audit.

        A read without leases may be reserved as DISPATCHED: its intent to run is on record with it.
        A budget is tenant, environment, grant and unit; windows of any length look at the same charges.

        Raises:
            BudgetExhausted: A charge does not fit; nothing was written and the key is still only claimed.
        """

    async def give_back(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a running call of which nothing ran as `call` says (FAILED); return its charges and its key."""

    async def pinned_version(self, scope: ClaimScope) -> str:
        """Name the tool version that an earlier call under this key ran with; "" when none did."""

    async def dispatch(
        self, call_id: str, leases: Sequence[LeaseRecord], sandboxes: Sequence[SandboxRecord] = ()
    ) -> None:
        """Commit the intent to run: state DISPATCHED, with the leases and containers that exist for it.

        There is nothing to commit for a call that was reserved as DISPATCHED and has no leases.
        """

    async def complete(
        self, call: CallRecord, audit: AuditEvent, *, frees_key: bool = False, behind: Latest | None = None
    ) -> None:
        """Commit the end of a DISPATCHED call: SUCCEEDED, FAILED or IN_DOUBT, as `call` says.

        `frees_key` is for a read that failed in passing: its key gets a new attempt, its charges stay.
        `behind` is for what nobody waits for: new reservations come first, everything else sees it done. It
        tells, when that is written, what is known of the sandboxes then.
        `call` replaces the record but for who asked what under which key, and for its leases: of those that
        are there only `lease_ended` sets `confirmed_dead`, and none is ever forgotten; others are added.
        """

    async def refuse(self, call: CallRecord, audit: AuditEvent) -> None:
        """Record a call that was refused after authenticate: state REFUSED, no key, no charges."""

    async def lease_ended(self, lease_id: str, at: datetime) -> None:
        """Note that look-up confirmed a lease's end. The first time stays; an unknown lease is no error.

        The first time appends the audit record "lease.ended" with tenant, environment and id of its call, and
        {"lease", "accessor", "credential"}, at `at`. A lease that a change adds dead is recorded with it.
        """

    async def amend(self, call: CallRecord) -> None:
        """Replace stages, sandboxes and tool_log of an ended call, add marks: what was known only after."""

    async def live_leases(self, tenant: str = "") -> Sequence[LiveLease]:
        """Every lease whose end is not confirmed, oldest first; of every tenant where none is named."""

    async def owed_leases(self) -> Sequence[tuple[str, LeaseRecord]]:
        """(call id, lease) of every lease whose end is not confirmed, of every epoch."""

    async def unfinished(self) -> Sequence[CallRecord]:
        """Calls of earlier epochs in RESERVED or DISPATCHED, without request and log: needs no key."""

    async def adopt(self, call: CallRecord, audit: AuditEvent) -> None:
        """End an unfinished call of an earlier epoch as `call` says (FAILED gives the key back; IN_DOUBT).

        FAILED gives the charges back too where the call was never dispatched.
        """

    async def in_doubt(self, limit: int = 100) -> Sequence[CallRecord]:
        """Calls in IN_DOUBT of every tenant, oldest first. One that cannot be opened now is left out.

        Raises:
            StoreError: None of them can be opened.
        """

    async def resolve(self, call: CallRecord, audit: AuditEvent) -> None:
        """End an IN_DOUBT or NEEDS_HUMAN call as `call` says.

        SUCCEEDED keeps its result, FAILED (it did not happen) gives key and charges back, NEEDS_HUMAN waits
        for a person. A greater `attempt` than the record's stays: the next one under the key follows it.
        """

    async def beat(self) -> None:
        """Say that this process lives: its epoch expires later.

        Raises:
            StaleEpoch: Another process has taken over.
        """

    async def tenant_key(self, tenant: str) -> bytes | None:
        """Read a tenant's wrapped data key."""

    async def put_tenant_key(self, tenant: str, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped data key; returns the one that is kept, which may be an earlier one."""

    async def erase_tenant(self, tenant: str, audit: AuditEvent) -> None:
        """Forget a tenant's data key, and what its calls hold: request, result, files, log, error text.

        A later change of the tenant gets a new key. Keys of its calls stay used.
        """

    async def grant_uses(self, tenant: str) -> Sequence[GrantUse]:
        """Count what each grant of a tenant allowed, by environment, agent and method. Any order."""

    async def set_brake(self, brake: Brake, audit: AuditEvent, replaces: str = "") -> Brake:
        """Add a brake, in place of the one with id `replaces`. Another that is like it stays, is returned."""

    async def lift_brake(self, brake_id: str, audit: AuditEvent) -> None:
        """Take a brake away. One that is not there is no error, and is not recorded."""

    async def brakes(self) -> Sequence[Brake]:
        """Every brake in force, of every tenant, oldest first."""

    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant; its artefacts come without their content."""

    async def read_artefact(self, tenant: str, call_id: str, position: int, offset: int) -> bytes:
        """Read a part of an artefact, the nth one of a call of the tenant.

        Returns:
            At most 1 MiB, from the offset on; nothing where there is no such call, artefact or offset.
        """

    async def list_calls(
        self,
        tenant: str,
        *,
        agent: str = "",
        method: str = "",
        state: CallState | None = None,
        page_size: int = 50,
        page_token: str = "",
    ) -> Page[CallRecord]:
        """List calls of a tenant, newest first, without request, result, artefacts and log: needs no key.

        Raises:
            ValueError: The token is not one that this list gave.
        """

    # --- versions ----------------------------------------------------------------------------------------
    async def put_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Add a version; the same digest again returns the row that is there, and records nothing.

        Raises:
            VersionExists: The version is there with another digest.
        """

    async def get_version(self, tenant: str, bundle: str, version: str) -> VersionRow | None:
        """Read one version by its name, not by an alias."""

    async def list_versions(
        self, tenant: str, *, bundle: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page[VersionRow]:
        """List versions of a tenant, newest first.

        Raises:
            ValueError: The token is not one that this list gave.
        """

    async def review_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Replace state, reviewed_by, reviewed and comment of a version.

        Raises:
            VersionExists: The version is there with another digest than the one reviewed.
        """

    async def move_alias(
        self, tenant: str, bundle: str, alias: str, version: str, audit: AuditEvent
    ) -> VersionRow:
        """Point an alias at a version."""

    # --- grants ------------------------------------------------------------------------------------------
    async def grant_files(self, tenant: str) -> GrantFiles:
        """Read the grant files in force."""

    async def apply_grants(self, tenant: str, files: GrantFiles, base_digest: str, audit: AuditEvent) -> None:
        """Replace a tenant's grant files.

        Raises:
            BaseChanged: Those in force do not have `base_digest`.
        """

    # --- audit -------------------------------------------------------------------------------------------
    async def append_audit(self, event: AuditEvent) -> None:
        """Record a decision that changes nothing else."""

    def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain from a sequence on."""

    async def tenants(self) -> Sequence[str]:
        """Tenants that have a version or grants: what has to be loaded at start."""
