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

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

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
from broker.store.records import (
    AliasStep,
    AuditEvent,
    AuditRecord,
    Claim,
    ClaimScope,
    Epoch,
    GrantFiles,
    Latest,
    Page,
    VersionRow,
)
from broker.workflow_records import Imprint, Marks, Workflow, WorkflowLabel, WorkflowName


class Store(Protocol):
    """Calls, claims, budgets, leases, versions, grants and audit of one installation."""

    epoch: Epoch

    @property
    def restored_at(self) -> datetime | None:
        """When the state was restored from a backup last; None where it never was."""

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
        self,
        call: CallRecord,
        scope: ClaimScope | None,
        charges: Sequence[Charge],
        audit: AuditEvent,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit, in one transaction, the call as RESERVED, its key, its charges, the audit and the imprint.

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
        self,
        call: CallRecord,
        audit: AuditEvent,
        *,
        frees_key: bool = False,
        behind: Latest | None = None,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit the end of a DISPATCHED call, SUCCEEDED, FAILED or IN_DOUBT, and its imprint.

        `frees_key` is for a read that failed in passing: its key gets a new attempt, its charges stay.
        `behind` is for what nobody waits for: new reservations come first, everything else sees it done. It
        tells, when that is written, what is known of the sandboxes then.
        `call` replaces the record but for who asked what under which key, and for its leases: of those that
        are there only `lease_ended` sets `confirmed_dead`, and none is ever forgotten; others are added.
        At most 256 connections are kept, the earliest; of the others their number.
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

        A later change of the tenant gets a new key. Keys of its calls stay used; connections stay, without
        digests of bodies. Its workflows lose their descriptions and trusted destinations, not their labels.
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

    async def alias_steps(self, tenant: str, bundle: str, alias: str) -> Sequence[str]:
        """Name the versions that an alias came by, newest first; what it went back from is not among them.

        At most 100; empty where there is no such alias.
        """

    async def step_back(self, step: AliasStep, audit: AuditEvent) -> VersionRow:
        """Point an alias at the version that it named before.

        Raises:
            AliasElsewhere: It does not name `step.left`, or named something else than `step.reached` before.
        """

    # --- grants ------------------------------------------------------------------------------------------
    async def grant_files(self, tenant: str) -> GrantFiles:
        """Read the grant files in force."""

    async def apply_grants(self, tenant: str, files: GrantFiles, base_digest: str, audit: AuditEvent) -> None:
        """Replace a tenant's grant files.

        Raises:
            BaseChanged: Those in force do not have `base_digest`.
        """

    # --- audit -------------------------------------------------------------------------------------------
    async def append_audit(self, event: AuditEvent, imprint: Imprint | None = None) -> None:
        """Record a decision that changes nothing else, but what a workflow holds."""

    def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain from a sequence on."""

    async def tenants(self) -> Sequence[str]:
        """Tenants that have a version or grants: what has to be loaded at start."""

    # --- workflows ---------------------------------------------------------------------------------------
    async def open_workflow(self, workflow: Workflow, audit: AuditEvent) -> None:
        """Add a workflow."""

    async def find_workflow(self, tenant: str, workflow_id: str) -> Workflow | None:
        """Read a workflow of a tenant, also one that expired not long ago."""

    async def workflow_labels(self, name: WorkflowName) -> Sequence[WorkflowLabel]:
        """Read the labels of a workflow, oldest first."""

    async def workflow_marks(self, ended_before: datetime) -> Marks:
        """Remove workflows, labels and trusted destinations that ended before a moment; read all others.

        Of every tenant: it is what a broker loads at its start.
        """
