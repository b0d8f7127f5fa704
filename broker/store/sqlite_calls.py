"""The part of the SQLite store that knows calls, keys, charges and leases."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.model import CallRecord, CallState, Charge, GrantUse, LeaseRecord, LiveLease, SandboxRecord
from broker.store import call_table
from broker.store.budgets import amounts_to_book, check_charges, merge_charges
from broker.store.cipher import PART_BYTES, KeptCall
from broker.store.database import Database, Turn
from broker.store.keys import KeyedCalls, Keys
from broker.store.options import StoreOptions
from broker.store.paging import call_position, clamp_page_size
from broker.store.records import AuditEvent, ClaimScope, Latest, Page
from broker.store.registry_tables import append_audit
from broker.store.rules import (
    ENDS,
    RUNNING,
    KeyRow,
    amend_call,
    check_attempt,
    check_new,
    check_reserved,
    check_state,
    end_call,
    find_new_ends,
    list_live,
    merge_leases,
    merge_sandboxes,
    resolve_call,
    scope_of,
)
from broker.store.sqlite_part import Begun, SqlitePart
from broker.store.workflow_table import add_imprint
from broker.workflow_records import Imprint

log = logging.getLogger(__name__)


class SqliteCalls(KeyedCalls, SqlitePart):
    """Calls, as `Store` promises them."""

    def __init__(self, database: Database, begun: Begun, options: StoreOptions) -> None:
        super().__init__(database, begun, options)
        self._keys = Keys(options, self)
        self._begun: set[str] = set()  # reserved as DISPATCHED; nothing more is on record of them yet

    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved, and its call without contents."""

        def query(connection: sqlite3.Connection) -> tuple[KeyRow, CallRecord] | None:
            self._check_epoch(connection)
            found = call_table.find_key(connection, scope)
            if found is None:
                return None
            kept = call_table.find_call(connection, found[1])
            assert kept is not None, "a foreign key keeps the call of every key"
            return found[0], kept.call

        return await self._database.read(query, sees_late=False)  # nothing under a key is written late

    async def find_state(self, call_id: str) -> CallState | None:
        """Find a call's state."""
        return await self._database.read(
            lambda connection: call_table.find_call_state(connection, call_id), sees_late=False
        )

    async def reserve(
        self,
        call: CallRecord,
        scope: ClaimScope | None,
        charges: Sequence[Charge],
        audit: AuditEvent,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit call, key, charges and audit."""
        merged = merge_charges(charges)
        kept = await self._sealing.seal_new(call)
        self._keys.check_held(scope, call.call_id)
        check_reserved(call, scope)

        def change(connection: sqlite3.Connection) -> None:
            now, epoch = self._options.clock(), self.epoch.number
            ledger = call_table.ChargeLedger(connection, call.tenant, call.environment)
            check_charges(merged, ledger, now)
            call_table.insert_call(connection, kept, epoch)
            if scope is not None:
                found = call_table.find_key(connection, scope)
                check_attempt(found[0] if found else None, call)
                call_table.take_key(connection, scope, call, now, epoch)
            for budget, amount in amounts_to_book(merged).items():
                call_table.book(connection, call, budget, amount, now)
            if call.grant_id:
                call_table.count_use(connection, call)
            if imprint is not None:
                add_imprint(connection, imprint)
            append_audit(connection, audit, self._options)

        await self._database.write(change, Turn.FIRST)
        if call.state is CallState.DISPATCHED:
            self._begun.add(call.call_id)
        if scope is not None:
            self._keys.release(scope, call.call_id)
        self._keys.notify(call.call_id)

    async def give_back(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of which nothing ran; charges and key are free."""
        kept = await self._sealing.seal_end(call)
        self._begun.discard(call.call_id)

        def change(connection: sqlite3.Connection) -> None:
            stored = call_table.find_call(connection, call.call_id)
            check_state(call.call_id, self._own_state(stored), RUNNING)
            ended = end_call(_record(stored), kept.call, (CallState.FAILED,))
            self._end(connection, stored, replace(kept, call=ended), audit)
            self._free(connection, ended, with_charges=True)

        await self._database.write(change)
        self._keys.notify(call.call_id)

    async def dispatch(
        self, call_id: str, leases: Sequence[LeaseRecord], sandboxes: Sequence[SandboxRecord] = ()
    ) -> None:
        """Commit the intent to run, where the reservation has not."""
        if call_id in self._begun and not leases:
            return
        begun = call_id in self._begun
        self._begun.discard(call_id)

        def change(connection: sqlite3.Connection) -> None:
            stored = call_table.find_call(connection, call_id)
            check_state(call_id, self._own_state(stored), RUNNING if begun else (CallState.RESERVED,))
            assert stored is not None, "a call with a state is there"
            dispatched = replace(
                stored.call,
                state=CallState.DISPATCHED,
                leases=merge_leases(stored.call.leases, leases),
                sandboxes=merge_sandboxes(stored.call.sandboxes, sandboxes),
            )
            call_table.dispatch_call(connection, dispatched)
            self._audit_all(connection, find_new_ends(stored.call, dispatched))

        await self._database.write(change)
        self._keys.notify(call_id)

    async def complete(
        self,
        call: CallRecord,
        audit: AuditEvent,
        *,
        frees_key: bool = False,
        behind: Latest | None = None,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit the end of a dispatched call."""
        kept = await self._sealing.seal_end(call)
        is_bare = call.call_id in self._begun and call.state in ENDS and not (call.key or call.leases)
        self._begun.discard(call.call_id)

        def change(connection: sqlite3.Connection) -> None:
            nonlocal kept
            if behind is not None:
                kept = replace(kept, call=replace(kept.call, sandboxes=tuple(behind())))
            if imprint is not None:
                add_imprint(connection, imprint)
            if is_bare and call_table.end_bare_call(connection, kept, self.epoch.number):
                append_audit(connection, audit, self._options)
                return
            stored = call_table.find_call(connection, call.call_id)
            check_state(call.call_id, self._own_state(stored), (CallState.DISPATCHED,))
            ended = end_call(_record(stored), kept.call, ENDS)
            self._end(connection, stored, replace(kept, call=ended), audit)
            if frees_key:
                self._free(connection, ended, with_charges=False)

        await self._database.write(change, Turn.NEXT if behind is None else Turn.LAST)
        self._keys.notify(call.call_id)

    async def refuse(self, call: CallRecord, audit: AuditEvent) -> None:
        """Record a refused call."""
        check_new(call, CallState.REFUSED, None)
        kept = await self._sealing.seal_new(call)

        def change(connection: sqlite3.Connection) -> None:
            call_table.insert_call(connection, kept, self.epoch.number)
            append_audit(connection, audit, self._options)

        await self._database.write(change, Turn.FIRST)

    async def lease_ended(self, lease_id: str, at: datetime) -> None:
        """Note that a lease's end was confirmed; the first time stays."""

        def change(connection: sqlite3.Connection) -> None:
            self._audit_all(connection, call_table.end_lease(connection, lease_id, at))

        await self._database.write(change)

    async def amend(self, call: CallRecord) -> None:
        """Replace what was known only after the end."""
        kept = await self._sealing.seal_end(replace(call, result=None))

        def change(connection: sqlite3.Connection) -> None:
            stored = call_table.find_call(connection, call.call_id)
            amended = amend_call(_record(stored), kept.call)
            assert stored is not None, "only a call that is there is amended"
            contents = replace(stored.contents, tool_log=kept.contents.tool_log)
            call_table.replace_call(connection, KeptCall(amended, contents))

        await self._database.write(change)

    async def live_leases(self, tenant: str = "") -> Sequence[LiveLease]:
        """List leases whose end is not confirmed, with their calls."""
        found = await self._database.read(lambda connection: call_table.select_owing(connection, tenant))
        return list_live(kept.call for kept in found)

    async def grant_uses(self, tenant: str) -> Sequence[GrantUse]:
        """Count what each grant of a tenant allowed."""
        return await self._database.read(lambda connection: call_table.select_uses(connection, tenant))

    async def owed_leases(self) -> Sequence[tuple[str, LeaseRecord]]:
        """List leases whose end is not confirmed."""
        return await self._database.read(call_table.select_owed)

    async def unfinished(self) -> Sequence[CallRecord]:
        """List running calls of earlier epochs."""
        number = self.epoch.number
        found = await self._database.read(lambda connection: call_table.select_running(connection, number))
        return [kept.call for kept in found]

    async def adopt(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of an earlier epoch."""
        kept = await self._sealing.seal_end(call)

        def change(connection: sqlite3.Connection) -> None:
            stored = call_table.find_call(connection, call.call_id)
            foreign = stored.call.state if stored and stored.call.epoch < self.epoch.number else None
            check_state(call.call_id, foreign, RUNNING)
            ended = end_call(_record(stored), kept.call, (CallState.FAILED, CallState.IN_DOUBT))
            self._end(connection, stored, replace(kept, call=ended), audit)
            if call.state is CallState.FAILED:
                self._free(connection, ended, with_charges=foreign is CallState.RESERVED)

        await self._database.write(change)
        self._keys.notify(call.call_id)

    async def in_doubt(self, limit: int = 100) -> Sequence[CallRecord]:
        """List the oldest calls in doubt."""
        found = await self._database.read(lambda connection: call_table.select_in_doubt(connection, limit))
        return await self._sealing.open_all(found)

    async def resolve(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call in doubt."""
        kept = await self._sealing.seal_end(call)

        def change(connection: sqlite3.Connection) -> None:
            stored = call_table.find_call(connection, call.call_id)
            resolved = resolve_call(_record(stored), kept.call)
            self._end(connection, stored, replace(kept, call=resolved), audit)
            if resolved.state is CallState.FAILED:
                self._free(connection, resolved, with_charges=True)

        await self._database.write(change)
        self._keys.notify(call.call_id)

    def _own_state(self, stored: KeptCall | None) -> CallState | None:
        return stored.call.state if stored and stored.call.epoch == self.epoch.number else None

    def _end(
        self, connection: sqlite3.Connection, stored: KeptCall | None, end: KeptCall, audit: AuditEvent
    ) -> None:
        assert stored is not None, "only a call that is there ends"
        call_table.replace_call(connection, stored.ended(end))
        call_table.add_artefacts(connection, end)
        self._audit_all(connection, [audit, *find_new_ends(stored.call, end.call)])

    def _audit_all(self, connection: sqlite3.Connection, events: Sequence[AuditEvent]) -> None:
        for event in events:
            append_audit(connection, event, self._options)

    def _free(self, connection: sqlite3.Connection, call: CallRecord, *, with_charges: bool) -> None:
        scope = scope_of(call)
        if scope is not None:
            call_table.free_key(connection, scope, call.attempt, self.epoch.number)
        if with_charges:
            call_table.unbook(connection, call)

    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant."""
        found = await self._database.read(
            lambda connection: call_table.find_whole_call(connection, tenant, call_id)
        )
        return await self._sealing.open(found) if found else None

    async def read_artefact(self, tenant: str, call_id: str, position: int, offset: int) -> bytes:
        """Read a part of an artefact."""
        part, begin = divmod(offset, PART_BYTES)
        found = await self._database.read(
            lambda connection: call_table.find_part(connection, tenant, call_id, position, part)
        )
        return (await self._sealing.open_part(found[0], position, part, found[1]))[begin:] if found else b""

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
        wanted = call_table.CallFilter(tenant, agent, method, state or "")
        before = self._tokens.read(wanted.binding, page_token) if page_token else call_table.NEWEST
        size = clamp_page_size(page_size)
        found = await self._database.read(
            lambda connection: call_table.select_calls(connection, wanted, before, size + 1)
        )
        return self._tokens.cut(wanted.binding, [kept.call for kept in found], size, call_position)


def _record(stored: KeptCall | None) -> CallRecord | None:
    return stored.call if stored else None
