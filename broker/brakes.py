"""The brakes in force: what an operator ordered to hold back, asked at every call.

    AGENT         an agent by name           refused at authenticate (CALLER_BLOCKED)
    CERTIFICATE   one certificate            refused at authenticate (CALLER_BLOCKED)
    TOOL          a tool, or all of a service   refused at authorize (BRAKE_SET)
    TENANT        everything of a tenant     refused at authorize (BRAKE_SET)
    ALL           everything                 refused at authorize (BRAKE_SET)

Rules:
1. They are in memory, and asked without an await: between a brake that is put on and the next call there is
   no gap. Every call is asked, not every channel: a channel that is open already holds nothing open.
2. They are loaded before the door opens; a start that cannot load them fails.
3. The broker's own calls are held back too: nothing is found out about, or sent again, behind a brake.
4. A brake holds back within its tenant only: nobody can stop another tenant by naming its certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from broker.errors import CallError, Failed, Refused
from broker.model import Brake, BrakeKind, Call, Caller, CallRecord, Role
from broker.store.protocol import Store
from toolcrib.v1.reasons_pb2 import Reason

AT_AUTHENTICATE = frozenset({BrakeKind.AGENT, BrakeKind.CERTIFICATE})

Key = tuple[BrakeKind, str, str]


class Brakes:
    """What is held back now. Only `Lever` changes it, after the store did."""

    def __init__(self) -> None:
        self._in_force: dict[Key, Brake] = {}
        self._lifted = asyncio.Event()

    async def load(self, store: Store) -> None:
        """Take over what earlier runs left in force.

        Raises:
            StoreError: They cannot be read; nothing may be let in.
        """
        for brake in await store.brakes():
            self.put(brake)

    def put(self, brake: Brake) -> None:
        """Hold back from now on."""
        self._in_force[_key(brake)] = brake

    def take(self, brake: Brake) -> None:
        """Let go again, and wake whoever waits for it; another brake that is like it stays."""
        if self.find_same(brake) == brake:
            del self._in_force[_key(brake)]
        self._lifted.set()
        self._lifted = asyncio.Event()

    @property
    def in_force(self) -> Sequence[Brake]:
        """Every brake in force, oldest first."""
        return sorted(self._in_force.values(), key=lambda brake: (brake.set_at, brake.brake_id))

    def find(self, brake_id: str) -> Brake | None:
        """Find a brake in force by its id."""
        return next((brake for brake in self._in_force.values() if brake.brake_id == brake_id), None)

    def find_same(self, brake: Brake) -> Brake | None:
        """Find the brake in force that holds the same back as a brake."""
        return self._in_force.get(_key(brake))

    def check_caller(self, caller: Caller) -> None:
        """See that nobody blocked the caller.

        Raises:
            Refused: CALLER_BLOCKED.
        """
        self._refuse(self.find_block(caller))

    def check_call(self, call: Call) -> None:
        """See that nothing holds a call's tool, its tenant or everything back.

        Raises:
            Refused: BRAKE_SET.
        """
        self.check_tool(call.caller.tenant, call.contract.method)

    def check_tool(self, tenant: str, method: str) -> None:
        """See that nothing holds a tool of a tenant back.

        Raises:
            Refused: BRAKE_SET.
        """
        self._refuse(self.find_hold(tenant, method))

    def find_block(self, caller: Caller) -> Brake | None:
        """Find what blocks a caller."""
        return self._find(_caller_keys(caller))

    def find_hold(self, tenant: str, method: str) -> Brake | None:
        """Find what holds a tool of a tenant back."""
        return self._find(_tool_keys(tenant, method))

    def holds_back(self, call: CallRecord) -> bool:
        """Tell whether anything holds a recorded call back."""
        return bool(self.find_block(caller_of(call)) or self.find_hold(call.tenant, call.method))

    async def wait_until_released(self, tenant: str, method: str) -> None:
        """Return when nothing holds a tool of a tenant back any more; at once when nothing does."""
        while self.find_hold(tenant, method) is not None:
            await self._lifted.wait()

    def _find(self, keys: Iterator[Key]) -> Brake | None:
        return next((self._in_force[key] for key in keys if key in self._in_force), None)

    def _refuse(self, brake: Brake | None) -> None:
        if brake is not None:
            raise refused_by(brake)


def holds(brake: Brake, caller: Caller, method: str) -> bool:
    """Tell whether a brake holds back a call of a caller with a tool."""
    keys = _caller_keys(caller) if brake.kind in AT_AUTHENTICATE else _tool_keys(caller.tenant, method)
    return _key(brake) in keys


def caller_of(call: CallRecord) -> Caller:
    """Say who made a recorded call, as far as the record knows: the certificate is not in it."""
    return Caller(call.tenant, call.agent, Role.AGENT, call.subject, "")


def refused_by(brake: Brake) -> Refused:
    """Say why a call is not let in."""
    blocked = {
        BrakeKind.AGENT: f'the agent "{brake.value}" is blocked',
        BrakeKind.CERTIFICATE: "this certificate is blocked",
    }
    if brake.kind in blocked:
        return Refused(
            Reason.REASON_CALLER_BLOCKED,
            f"{blocked[brake.kind]}, nothing ran: {brake.reason}. Ask the tenant's operators",
            details={"brake": brake.brake_id},
        )
    what = {BrakeKind.TOOL: brake.value, BrakeKind.TENANT: f"all of tenant {brake.tenant}"}
    return Refused(
        Reason.REASON_BRAKE_SET,
        f"an operator holds {what.get(brake.kind, 'everything')} back, nothing ran: {brake.reason}. "
        "Ask again, with the same key, when it is lifted",
        details={"brake": brake.brake_id},
    )


def stopped_by(brake: Brake, what: str, **details: str) -> CallError:
    """Say that a brake stopped a call that was let in."""
    return Failed(
        Reason.REASON_CALL_STOPPED,
        f"an operator stopped the call ({brake.reason}): {what}",
        details={"brake": brake.brake_id, **details},
    )


def _key(brake: Brake) -> Key:
    return brake.kind, brake.tenant, brake.value


def _caller_keys(caller: Caller) -> Iterator[Key]:
    if caller.role is Role.AGENT:  # a person of the same name is somebody else
        yield BrakeKind.AGENT, caller.tenant, caller.name
    if caller.certificate:
        for fingerprint in (caller.certificate, *caller.twins):
            yield BrakeKind.CERTIFICATE, caller.tenant, fingerprint


def _tool_keys(tenant: str, method: str) -> Iterator[Key]:
    yield BrakeKind.TOOL, tenant, method
    yield BrakeKind.TOOL, tenant, method.rpartition("/")[0]
    yield BrakeKind.TENANT, tenant, ""
    yield BrakeKind.ALL, "", ""
