"""What workflows hold, in memory as on the disk: loaded with the epoch, written through by the calls.

One broker process has the state, so what is here is what is recorded. The gate asks here, and waits for
nobody.

Rules:
1. A label is here once it is durable, and it is durable before content that it is about can leave.
2. A call without a handle counts everything that its agent got, under any handle and in any environment; so
   a header that is dropped or changed sheds nothing.
3. Content that came without a handle counts for every workflow of the agent that was open then: it may stand
   in the memory of each. One that is opened afterwards begins without it, on its orchestrator's word.
4. After a restore, what was read since the backup is not known: older workflows, and agents without a handle
   for as long as labels stick, count as untrusted.
5. Only HMACs of trusted destinations are kept, so many a workflow; what does not fit is not trusted.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.echoes import find_named
from broker.errors import CallError, Refused
from broker.keys import TenantKeys
from broker.labels import RESTORED, UNTRUSTED, label_failure, label_record, make_labels
from broker.model import Answer, Call, Caller, CallRecord
from broker.settings import Workflows as WorkflowSettings
from broker.store.protocol import Store
from broker.store.records import AuditEvent
from broker.workflow_records import Imprint, Marks, Workflow, WorkflowLabel, WorkflowName, merge_labels
from toolcrib.v1.reasons_pb2 import Reason

MAX_TRUSTED = 10_000
"""Destinations from trusted results that one workflow keeps."""
# Longer than any workflow or label lives (settings.py): what is older does not count.
KEPT = timedelta(days=8)
# What came again is written again when this part of its time has passed, and lives so much longer.
_PART = 8
_HANDLE = re.compile(r"w1\.([0-9a-f]{32})\.([0-9]{10})\.[A-Za-z0-9_-]{43}")


class WorkflowBook:
    """Opens workflows, reads their handles, and knows what each of them holds.

    Attributes:
        clock: Tells the time.
    """

    def __init__(self, keys: TenantKeys, settings: WorkflowSettings, clock: Callable[[], datetime]) -> None:
        self.settings = settings
        self._keys = keys
        self.clock = clock
        self._sticks = timedelta(seconds=settings.label_ttl_seconds)
        self._restored_at: datetime | None = None
        self._opened: dict[str, dict[str, Workflow]] = defaultdict(dict)
        self._opening: Counter[str] = Counter()
        self._latest: dict[tuple[str, str], datetime] = {}
        self._places: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._labels: dict[WorkflowName, dict[str, WorkflowLabel]] = defaultdict(dict)
        self._trusted: dict[WorkflowName, dict[bytes, datetime]] = defaultdict(dict)

    async def load(self, store: Store) -> None:
        """Read what still counts, and remove from the store what does not."""
        now = self.clock()
        self._restored_at = store.restored_at
        self._fill(await store.workflow_marks(now - KEPT))

    def _fill(self, marks: Marks) -> None:
        for workflow in marks.workflows:
            self._add(workflow)
        for name, label in marks.labels:
            self._put(name, label)
        for name, mac, at in marks.trusted:
            self._trusted[name][mac] = at

    # --- handles -----------------------------------------------------------------------------------------
    async def open(
        self, store: Store, wanted: Workflow, make_event: Callable[[Workflow], AuditEvent]
    ) -> tuple[str, Workflow]:
        """Open a workflow.

        Args:
            store: Where it is recorded.
            wanted: What is to be opened; its id is made here.
            make_event: Says in the audit that it was opened.

        Returns:
            The handle, and the workflow.

        Raises:
            Refused: TOO_MANY_CALLS, the tenant has too many that have not expired.
        """
        self._forget_expired(wanted.tenant)
        if len(self._opened[wanted.tenant]) + self._opening[wanted.tenant] >= self.settings.max_open:
            raise Refused(
                Reason.REASON_TOO_MANY_CALLS,
                f"the tenant has {self.settings.max_open} workflows that have not expired, its limit "
                "(workflows.max_open); give them a shorter time",
                retry_after_seconds=60.0,
            )
        expires = wanted.expires.replace(microsecond=0)  # whole seconds, as the handle says it
        workflow = replace(wanted, workflow_id=secrets.token_hex(16), expires=expires)
        self._opening[wanted.tenant] += 1  # those that are being written down count too
        try:
            await store.open_workflow(workflow, make_event(workflow))
            self._add(workflow)
        finally:
            self._opening[wanted.tenant] -= 1
        return self._sign(workflow), workflow

    def read(self, handle: str, caller: Caller, environment: str) -> str:
        """Read the id of the workflow that a handle names.

        Raises:
            Refused: WORKFLOW_INVALID.
        """
        shape = _HANDLE.fullmatch(handle)
        if shape is None:
            raise _invalid("is not of the form of one")
        name = WorkflowName(caller.tenant, environment, caller.name, shape[1])
        if not hmac.compare_digest(handle, self._write(name, int(shape[2]))):
            raise _invalid(
                f'was not given by this broker to agent "{caller.name}" for environment "{environment}"'
            )
        workflow = self.find(name)
        if workflow is None:
            raise _invalid("has expired, or its workflow is not known any more")
        return workflow.workflow_id

    def find(self, name: WorkflowName) -> Workflow | None:
        """Find a workflow that was opened and has not expired."""
        workflow = self._opened[name.tenant].get(name.workflow_id)
        if workflow is None or workflow.name != name or workflow.expires <= self.clock():
            return None
        return workflow

    def _sign(self, workflow: Workflow) -> str:
        return self._write(workflow.name, int(workflow.expires.timestamp()))

    def _write(self, name: WorkflowName, expires: int) -> str:
        mac = self._keys.workflow_mac(name, f"w1 {expires}")
        return f"w1.{name.workflow_id}.{expires:010d}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def _add(self, workflow: Workflow) -> None:
        self._opened[workflow.tenant][workflow.workflow_id] = workflow
        agent = workflow.tenant, workflow.agent
        self._latest[agent] = max(self._latest.get(agent, workflow.opened), workflow.opened)

    def _forget_expired(self, tenant: str) -> None:
        now = self.clock()
        for workflow in [one for one in self._opened[tenant].values() if one.expires <= now]:
            del self._opened[tenant][workflow.workflow_id]
            self._labels.pop(workflow.name, None)
            self._trusted.pop(workflow.name, None)

    # --- what they hold ----------------------------------------------------------------------------------
    def holds_untrusted(self, name: WorkflowName) -> bool:
        """Tell whether a workflow holds content that strangers may have written."""
        return self._is_restored(name) or any(one.label == UNTRUSTED for one in self._counting(name))

    def labels(self, name: WorkflowName) -> Sequence[WorkflowLabel]:
        """List what a workflow holds, oldest first."""
        merged: dict[str, WorkflowLabel] = {}
        if self._is_restored(name):
            assert self._restored_at is not None, "only a state that was restored is"
            since = self._restored_at
            merged = {text: WorkflowLabel(text, "", since, since) for text in (RESTORED, UNTRUSTED)}
        for label in self._counting(name):
            merged.setdefault(label.label, label)
        return sorted(merged.values(), key=lambda label: (label.since, label.label))

    def trusts(self, name: WorkflowName, value: str) -> bool:
        """Tell whether a trusted result named a destination to a workflow."""
        if name not in self._trusted:
            return False
        at = self._trusted[name].get(self._keys.destination_mac(name, value))
        return at is not None and (bool(name.workflow_id) or self._is_alive(at))

    def _counting(self, name: WorkflowName) -> Iterable[WorkflowLabel]:
        own = self._list_own(name)
        if not name.workflow_id:
            return [label for label in own if self._is_alive(label.last)]
        workflow = self.find(name)
        if workflow is None:
            return own  # nobody can tell since when: everything counts
        bare = [one for one in own if one.last_bare is not None and one.last_bare >= workflow.opened]
        return [*self._labels.get(name, {}).values(), *bare]

    def _list_own(self, name: WorkflowName) -> Sequence[WorkflowLabel]:
        """List what an agent holds itself, in whatever environment it got it: to name another is a header."""
        places = self._places.get((name.tenant, name.agent), ())
        names = [name._replace(environment=environment, workflow_id="") for environment in places]
        return [label for own in names for label in self._labels[own].values()]

    def _put(self, name: WorkflowName, label: WorkflowLabel) -> None:
        self._places[name.tenant, name.agent].add(name.environment)
        self._labels[name][label.label] = merge_labels(self._labels[name].get(label.label), label)

    def _is_restored(self, name: WorkflowName) -> bool:
        if self._restored_at is None:
            return False
        if not name.workflow_id:
            return self._is_alive(self._restored_at)
        workflow = self.find(name)
        return workflow is None or workflow.opened <= self._restored_at

    def _is_alive(self, last: datetime) -> bool:
        return self.clock() < last + self._sticks + self._sticks / _PART

    # --- what calls leave --------------------------------------------------------------------------------
    def arrival(self, call: Call) -> Imprint | None:
        """Say what a call will bring into its workflow; None where all of it is there already."""
        return self._imprint(name_of(call), call.call_id, make_labels(call.contract, call.version))

    async def result(self, call: Call, answer: Answer) -> Imprint | None:
        """Say what an answer brings beyond that: files, and destinations from a trusted result.

        Its labels again where a workflow was opened since the call was reserved: to that one they are new.
        """
        values = await find_named(call, answer.result)
        return self._imprint(name_of(call), call.call_id, answer.labels, values)

    def failure(self, call: Call, error: CallError) -> Imprint | None:
        """Say what the words of a tool that failed bring."""
        labels = label_failure(error, call.contract.method, call.version.version)
        return self._imprint(name_of(call), call.call_id, labels)

    def reading(self, name: WorkflowName, record: CallRecord) -> Imprint | None:
        """Say what comes into a workflow when the record of a call is read, or its answer replayed."""
        return self._imprint(name, record.call_id, label_record(record))

    async def take_in(self, store: Store, name: WorkflowName, record: CallRecord, reader: Caller) -> None:
        """Record that an agent reads what became of a call, before it has it."""
        while (imprint := self.reading(name, record)) is not None:  # again where one was opened meanwhile
            details = {"agent": name.agent, "workflow": name.workflow_id, "labels": list(imprint.labels)}
            event = AuditEvent(
                "workflow.labelled",
                name.tenant,
                name.environment,
                imprint.at,
                record.call_id,
                reader.identity,
                details,
            )
            await store.append_audit(event, imprint)
            self.note(imprint)

    def note(self, imprint: Imprint | None) -> None:
        """Take over what a call left: once it is durable, but trusted destinations may be noted before."""
        if imprint is None:
            return
        for name, label in imprint.spread():
            if self._is_kept(name):
                self._put(name, label)
        self.trust(imprint)

    def trust(self, imprint: Imprint | None) -> None:
        """Take over trusted destinations alone; a crash that forgets them only makes the gate stricter."""
        if imprint is None or not imprint.trusted or not self._is_kept(imprint.workflow):
            return
        kept = {mac: at for mac, at in self._trusted[imprint.workflow].items() if at >= imprint.forget_before}
        self._trusted[imprint.workflow] = kept | dict.fromkeys(imprint.trusted, imprint.at)

    def _is_kept(self, name: WorkflowName) -> bool:
        """Tell whether anybody can ask again: one that was forgotten while its call ran stays forgotten."""
        return not name.workflow_id or name.workflow_id in self._opened[name.tenant]

    def _imprint(
        self, name: WorkflowName, call_id: str, labels: Iterable[str], values: Iterable[str] = ()
    ) -> Imprint | None:
        # Whatever the clock does, what comes after a workflow was opened is no older than that.
        opened = self._latest.get((name.tenant, name.agent))
        now = max(self.clock(), opened) if opened else self.clock()
        new = tuple(label for label in labels if not self._is_fresh(name, label, now))
        trusted = self._find_new(name, values, now)
        if not new and not trusted:
            return None
        return Imprint(name, call_id, now, self._oldest_trusted(name, now), new, trusted)

    def _is_fresh(self, name: WorkflowName, label: str, now: datetime) -> bool:
        """Tell whether a label need not be written again."""
        own = self._labels.get(name.agent_itself, {}).get(label)
        if own is None or now - own.last >= self._sticks / _PART:
            return False
        if name.workflow_id:
            return not self._is_kept(name) or label in self._labels.get(name, {})
        opened = self._latest.get((name.tenant, name.agent))
        if own.last_bare is None or now - own.last_bare >= self._sticks / _PART:
            return False
        return opened is None or own.last_bare >= opened

    def _find_new(self, name: WorkflowName, values: Iterable[str], now: datetime) -> tuple[bytes, ...]:
        """Find the destinations that are to be written, as many as there is room for."""
        macs = sorted({self._keys.destination_mac(name, value) for value in values})
        if not macs:
            return ()
        before = self._oldest_trusted(name, now)
        kept = {mac: at for mac, at in self._trusted.get(name, {}).items() if at >= before}
        again = [mac for mac in macs if mac in kept and now - kept[mac] >= self._sticks / _PART]
        new = [mac for mac in macs if mac not in kept]
        return (*again, *new[: max(MAX_TRUSTED - len(kept), 0)])

    def _oldest_trusted(self, name: WorkflowName, now: datetime) -> datetime:
        """A handle's destinations end with it; those of an agent itself when nothing renewed them."""
        return now - (KEPT if name.workflow_id else self._sticks + self._sticks / _PART)


async def load_workflows(
    keys: TenantKeys, settings: WorkflowSettings, clock: Callable[[], datetime], store: Store
) -> WorkflowBook:
    """Read what workflows hold, when a broker starts."""
    book = WorkflowBook(keys, settings, clock)
    await book.load(store)
    return book


def name_of(call: Call) -> WorkflowName:
    """Name the workflow that a call belongs to."""
    return WorkflowName(call.caller.tenant, call.environment, call.caller.name, call.workflow)


def expiry(now: datetime, asked_seconds: int, most_seconds: int) -> datetime:
    """Say when a handle ends; 0 asks for the most."""
    return now.astimezone(UTC) + timedelta(seconds=asked_seconds or most_seconds)


def _invalid(why: str) -> Refused:
    return Refused(
        Reason.REASON_WORKFLOW_INVALID,
        f"the workflow handle {why}; ask your orchestrator for a new workflow, or call without a handle",
    )
