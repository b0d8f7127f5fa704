"""A store that keeps everything in the process's memory: for tests, and for nothing else.

It forgets with the process. Otherwise it promises what SQLite promises: one contract suite runs on both.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

from broker.audit import START, Anchor, seal
from broker.model import CallRecord, CallState, Charge, LeaseRecord
from broker.store.budgets import amounts_to_book, check_charges, merge_charges
from broker.store.keys import Keys
from broker.store.memory_state import Booking, MemoryLedger, MemoryState
from broker.store.options import StoreOptions
from broker.store.paging import PageTokens, call_position, clamp_page_size, version_position
from broker.store.protocol import (
    AuditEvent,
    AuditRecord,
    Claim,
    ClaimScope,
    Epoch,
    GrantFiles,
    Page,
    StaleEpoch,
    StoreError,
    VersionRow,
)
from broker.store.rules import (
    ENDS,
    RUNNING,
    KeyRow,
    amend_call,
    check_attempt,
    check_base,
    check_new,
    check_same_digest,
    check_state,
    check_version,
    end_call,
    merge_leases,
    review,
    scope_of,
)


class MemoryStore:
    """Implements `Store` on dictionaries. See there for what each method promises."""

    def __init__(self, options: StoreOptions | None = None, state: MemoryState | None = None) -> None:
        self._options = options or StoreOptions(secrets.token_bytes(32), "memory")
        self.state = state or MemoryState()
        self.state.epoch += 1
        self.epoch = Epoch(self.state.installation, self.state.epoch)
        self._tokens = PageTokens(self.state.page_key)
        self._keys = Keys(self._options, self)
        self._closed = False

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True
        self._keys.notify_all()

    # --- calls -------------------------------------------------------------------------------------------
    async def claim(self, scope: ClaimScope, fingerprint: str, call_id: str) -> Claim:
        """Take a key, or find who has it."""
        return await self._keys.claim(scope, fingerprint, call_id)

    async def release(self, scope: ClaimScope, call_id: str) -> None:
        """Give an unreserved key back."""
        self._keys.release(scope, call_id)

    async def wait_for_change(self, call_id: str, timeout_seconds: float) -> None:
        """Wait for a call's next change."""
        await self._keys.wait(call_id, timeout_seconds)

    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved, and its call."""
        await self._begin_read()
        if scope not in self.state.keys:
            return None
        key, call_id = self.state.keys[scope]
        return key, self.state.calls[call_id]

    async def find_state(self, call_id: str) -> CallState | None:
        """Find a call's state."""
        await self._begin_read()
        call = self.state.calls.get(call_id)
        return call.state if call else None

    async def reserve(
        self, call: CallRecord, scope: ClaimScope | None, charges: Sequence[Charge], audit: AuditEvent
    ) -> None:
        """Commit call, key, charges and audit."""
        self._keys.check_held(scope, call.call_id)
        check_new(call, CallState.RESERVED, scope)
        await self._begin_write()
        self._check_absent(call)
        if scope is not None:
            key, _ = self.state.keys.get(scope, (None, ""))
            check_attempt(key, call)
        now = self._options.clock()
        bookings = self._book(call, merge_charges(charges), now)
        self._append(audit)
        if scope is not None:
            self.state.keys[scope] = KeyRow(call.attempt, now, free=False), call.call_id
            self._keys.release(scope, call.call_id)
        self.state.calls[call.call_id] = replace(call, epoch=self.epoch.number, leases=())
        self.state.bookings.extend(bookings)
        self._keys.notify(call.call_id)

    def _book(self, call: CallRecord, charges: Sequence[Charge], now: datetime) -> Sequence[Booking]:
        place = call.tenant, call.environment
        mine = [one for one in self.state.bookings if (one.tenant, one.environment) == place]
        check_charges(charges, MemoryLedger(mine), now)
        return [
            Booking(*place, budget, now, call.call_id, amount)
            for budget, amount in amounts_to_book(charges).items()
        ]

    async def give_back(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of which nothing ran; charges and key are free."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        check_state(call.call_id, self._own_state(stored), RUNNING)
        self._end(end_call(stored, call, (CallState.FAILED,)), audit)
        self._free(call.call_id, with_charges=True)

    async def pinned_version(self, scope: ClaimScope) -> str:
        """Name the version that the call which holds a key ran with."""
        found = await self.find_key(scope)
        return "" if found is None or found[0].free else found[1].tool_version

    async def dispatch(self, call_id: str, leases: Sequence[LeaseRecord]) -> None:
        """Commit the intent to run."""
        await self._begin_write()
        stored = self.state.calls.get(call_id)
        check_state(call_id, self._own_state(stored), (CallState.RESERVED,))
        assert stored is not None, "a call with a state is there"
        merged = merge_leases(stored.leases, leases)
        self.state.calls[call_id] = replace(stored, state=CallState.DISPATCHED, leases=merged)
        self._keys.notify(call_id)

    async def complete(self, call: CallRecord, audit: AuditEvent, *, frees_key: bool = False) -> None:
        """Commit the end of a dispatched call."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        check_state(call.call_id, self._own_state(stored), (CallState.DISPATCHED,))
        self._end(end_call(stored, call, ENDS), audit)
        if frees_key:
            self._free(call.call_id, with_charges=False)

    async def refuse(self, call: CallRecord, audit: AuditEvent) -> None:
        """Record a refused call."""
        check_new(call, CallState.REFUSED, None)
        await self._begin_write()
        self._check_absent(call)
        self._append(audit)
        self.state.calls[call.call_id] = replace(call, epoch=self.epoch.number, leases=())

    async def lease_ended(self, lease_id: str, at: datetime) -> None:
        """Note that a lease's end was confirmed; the first time stays."""
        await self._begin_write()
        for call in list(self.state.calls.values()):
            leases = tuple(
                replace(lease, confirmed_dead=lease.confirmed_dead or at)
                if lease.lease_id == lease_id
                else lease
                for lease in call.leases
            )
            self.state.calls[call.call_id] = replace(call, leases=leases)

    async def amend(self, call: CallRecord) -> None:
        """Replace what was known only after the end."""
        await self._begin_write()
        self.state.calls[call.call_id] = amend_call(self.state.calls.get(call.call_id), call)

    async def owed_leases(self) -> Sequence[tuple[str, LeaseRecord]]:
        """List leases whose end is not confirmed."""
        await self._begin_read()
        return [
            (call.call_id, lease)
            for call in self.state.calls.values()
            for lease in call.leases
            if lease.confirmed_dead is None
        ]

    async def unfinished(self) -> Sequence[CallRecord]:
        """List running calls of earlier epochs."""
        await self._begin_read()
        calls = self.state.calls.values()
        return [call for call in calls if call.state in RUNNING and call.epoch < self.epoch.number]

    async def adopt(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of an earlier epoch."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        foreign = stored.state if stored and stored.epoch < self.epoch.number else None
        check_state(call.call_id, foreign, RUNNING)
        self._end(end_call(stored, call, (CallState.FAILED, CallState.IN_DOUBT)), audit)
        if call.state is CallState.FAILED:
            self._free(call.call_id, with_charges=foreign is CallState.RESERVED)

    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant."""
        await self._begin_read()
        call = self.state.calls.get(call_id)
        return call if call and call.tenant == tenant else None

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
        """List calls of a tenant, newest first."""
        binding = ("calls", tenant, agent, method, state or "")
        before = self._tokens.read(binding, page_token) if page_token else None
        await self._begin_read()
        found = [
            call
            for call in self.state.calls.values()
            if call.tenant == tenant
            and agent in ("", call.agent)
            and method in ("", call.method)
            and state in (None, call.state)
            and (before is None or call_position(call) < before)
        ]
        found.sort(key=call_position, reverse=True)
        return self._tokens.cut(binding, found, clamp_page_size(page_size), call_position)

    # --- versions ----------------------------------------------------------------------------------------
    async def put_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Add a version."""
        await self._begin_write()
        name = row.tenant, row.bundle, row.version
        found = self.state.versions.get(name)
        if found is not None:
            check_same_digest(found, row)
            return self._with_aliases(found)
        self._append(audit)
        self.state.versions[name] = replace(row, aliases=())
        return self._with_aliases(row)

    async def get_version(self, tenant: str, bundle: str, version: str) -> VersionRow | None:
        """Read one version."""
        await self._begin_read()
        found = self.state.versions.get((tenant, bundle, version))
        return self._with_aliases(found) if found else None

    async def list_versions(
        self, tenant: str, *, bundle: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page[VersionRow]:
        """List versions of a tenant, newest first."""
        binding = ("versions", tenant, bundle)
        before = self._tokens.read(binding, page_token) if page_token else None
        await self._begin_read()
        found = [
            self._with_aliases(row)
            for row in self.state.versions.values()
            if row.tenant == tenant
            and bundle in ("", row.bundle)
            and (before is None or version_position(row) < before)
        ]
        found.sort(key=version_position, reverse=True)
        return self._tokens.cut(binding, found, clamp_page_size(page_size), version_position)

    async def review_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Replace what a review says of a version."""
        await self._begin_write()
        found = self._version(row.tenant, row.bundle, row.version)
        reviewed = review(found, row)
        self._append(audit)
        self.state.versions[row.tenant, row.bundle, row.version] = reviewed
        return self._with_aliases(reviewed)

    async def move_alias(
        self, tenant: str, bundle: str, alias: str, version: str, audit: AuditEvent
    ) -> VersionRow:
        """Point an alias at a version."""
        await self._begin_write()
        found = self._version(tenant, bundle, version)
        self._append(audit)
        self.state.aliases[tenant, bundle, alias] = version
        return self._with_aliases(found)

    def _version(self, tenant: str, bundle: str, version: str) -> VersionRow:
        return check_version(self.state.versions.get((tenant, bundle, version)), bundle, version)

    def _with_aliases(self, row: VersionRow) -> VersionRow:
        aliases = sorted(
            alias
            for (tenant, bundle, alias), version in self.state.aliases.items()
            if (tenant, bundle, version) == (row.tenant, row.bundle, row.version)
        )
        return replace(row, aliases=tuple(aliases))

    # --- grants ------------------------------------------------------------------------------------------
    async def grant_files(self, tenant: str) -> GrantFiles:
        """Read the grant files in force."""
        await self._begin_read()
        return self.state.grants.get(tenant, GrantFiles({}, ""))

    async def apply_grants(self, tenant: str, files: GrantFiles, base_digest: str, audit: AuditEvent) -> None:
        """Replace a tenant's grant files."""
        await self._begin_write()
        check_base(self.state.grants.get(tenant, GrantFiles({}, "")).digest, base_digest)
        self._append(audit)
        self.state.grants[tenant] = replace(files, files=dict(files.files))

    # --- audit -------------------------------------------------------------------------------------------
    async def append_audit(self, event: AuditEvent) -> None:
        """Record a decision that changes nothing else."""
        await self._begin_write()
        self._append(event)

    async def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain."""
        await self._begin_read()
        for record in self.state.audit[after_sequence:]:
            yield record

    async def tenants(self) -> Sequence[str]:
        """Tenants that have a version or grants."""
        await self._begin_read()
        return sorted({tenant for tenant, _, _ in self.state.versions} | set(self.state.grants))

    # --- the transaction ---------------------------------------------------------------------------------
    async def _begin_read(self) -> None:
        """Let others run first, as a store with a disk does."""
        await asyncio.sleep(0)
        if self._closed:
            raise StoreError("the store is closed")

    async def _begin_write(self) -> None:
        """From here to the method's end nothing awaits: that is the transaction."""
        await self._begin_read()
        if self.state.epoch != self.epoch.number:
            raise StaleEpoch("another broker has taken the store over; this one may not change it any more")

    def _append(self, event: AuditEvent) -> None:
        """Chain a record: the last step that can fail, so that a change and its record come together."""
        chain = self.state.audit
        head = Anchor(chain[-1].sequence, chain[-1].hash) if chain else START
        chain.append(seal(event, head, self._options.audit_key, self._options.key_id))

    def _check_absent(self, call: CallRecord) -> None:
        if call.call_id in self.state.calls:
            raise StoreError(f"call {call.call_id}: is recorded already")

    def _own_state(self, stored: CallRecord | None) -> CallState | None:
        return stored.state if stored and stored.epoch == self.epoch.number else None

    def _end(self, ended: CallRecord, audit: AuditEvent) -> None:
        self._append(audit)
        self.state.calls[ended.call_id] = ended
        self._keys.notify(ended.call_id)

    def _free(self, call_id: str, *, with_charges: bool) -> None:
        scope = scope_of(self.state.calls[call_id])
        if scope is not None:
            key, _ = self.state.keys[scope]
            self.state.keys[scope] = replace(key, free=True), call_id
        if with_charges:
            self.state.bookings = [one for one in self.state.bookings if one.call_id != call_id]
