"""`toolcrib.v1.Operations`: what only a person may decide about calls, tenants, and what may go on at all.

An operator acts within the own tenant. What reaches beyond it (ALL, another tenant, the leases of every
tenant) is for platform operators; a brake that one of them set on a tenant from outside stays until one of
them lifts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from broker.api.door import Door
from broker.api.messages import call_message, timestamp
from broker.decision import Decider, Decision
from broker.errors import Refused
from broker.lease_book import ListedLease
from broker.lever import Lever, Order
from broker.model import Brake, BrakeKind, Caller
from broker.outlast import outlast
from broker.stages.authenticate import tenant_of
from broker.store.protocol import Store
from broker.store.records import AuditEvent
from toolcrib.v1 import operations_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation

SERVICE = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
_KIND = "BRAKE_KIND_"


class OperationsService:
    """The door for operators."""

    def __init__(
        self, door: Door, decider: Decider, lever: Lever, store: Store, clock: Callable[[], datetime]
    ) -> None:
        self._door, self._decider, self._lever, self._store, self._clock = door, decider, lever, store, clock
        base = f"/{SERVICE.full_name}/"
        self.ResolveCall = door.guard(base + "ResolveCall", self._resolve_call)
        self.EraseTenant = door.guard(base + "EraseTenant", self._erase_tenant)
        self.ListLeases = door.guard(base + "ListLeases", self._list_leases)
        self.SetBrake = door.guard(base + "SetBrake", self._set_brake)
        self.LiftBrake = door.guard(base + "LiftBrake", self._lift_brake)
        self.ListBrakes = door.guard(base + "ListBrakes", self._list_brakes)

    async def _resolve_call(
        self, request: operations_pb2.ResolveCallRequest, caller: Caller
    ) -> operations_pb2.ResolveCallResponse:
        decision = Decision(request.happened, request.result_json, request.reason)
        record = await outlast(self._decider.decide(request.call_id, decision, caller))
        return operations_pb2.ResolveCallResponse(call=call_message(record, for_people=True))

    async def _erase_tenant(
        self, request: operations_pb2.EraseTenantRequest, caller: Caller
    ) -> operations_pb2.EraseTenantResponse:
        if request.tenant != caller.tenant:
            raise Refused(
                Reason.REASON_REQUEST_INVALID,
                "nothing was erased: an operator erases the own tenant only",
                violations=[
                    Violation("tenant", f'must be "{caller.tenant}", the tenant of your certificate')
                ],
            )
        event = AuditEvent("tenant.erased", caller.tenant, "", self._clock(), actor=caller.identity)
        await outlast(self._store.erase_tenant(caller.tenant, event))
        return operations_pb2.EraseTenantResponse()

    async def _list_leases(
        self, request: operations_pb2.ListLeasesRequest, caller: Caller
    ) -> operations_pb2.ListLeasesResponse:
        if request.all_tenants:
            self._door.check_platform_operator(caller, "to see the leases of every tenant")
        found = await self._lever.book.read("" if request.all_tenants else caller.tenant)
        leases = [_lease_message(one) for one in _select(found, request.agent, request.tool)]
        return operations_pb2.ListLeasesResponse(leases=leases)

    async def _set_brake(
        self, request: operations_pb2.SetBrakeRequest, caller: Caller
    ) -> operations_pb2.SetBrakeResponse:
        order = _read_order(request, caller)
        if order.kind is BrakeKind.ALL:
            self._door.check_platform_operator(caller, "to hold everything back")
        elif order.tenant != caller.tenant:
            self._door.check_platform_operator(caller, "to act on another tenant than your own")
        halt = await outlast(self._lever.set(order, caller))
        return operations_pb2.SetBrakeResponse(
            brake=_brake_message(halt.brake),
            stopped_call_ids=halt.call_ids,
            leases_ended=halt.leases_ended,
            leases_owed=halt.leases_owed,
        )

    async def _lift_brake(
        self, request: operations_pb2.LiftBrakeRequest, caller: Caller
    ) -> operations_pb2.LiftBrakeResponse:
        brake = self._lever.brakes.find(request.id)
        if brake is None or not self._may_lift(brake, caller):
            raise Refused(
                Reason.REASON_BRAKE_UNKNOWN,
                "no brake in force with this id that you may lift; ListBrakes names those you see. One that "
                "a platform operator set from outside your tenant is lifted by a platform operator",
            )
        await outlast(self._lever.lift(brake, request.reason, caller))
        return operations_pb2.LiftBrakeResponse(brake=_brake_message(brake))

    async def _list_brakes(
        self, _: operations_pb2.ListBrakesRequest, caller: Caller
    ) -> operations_pb2.ListBrakesResponse:
        everything = self._door.is_platform_operator(caller)
        seen = [
            brake
            for brake in self._lever.brakes.in_force
            if everything or brake.tenant in ("", caller.tenant)  # ALL holds this tenant back too
        ]
        return operations_pb2.ListBrakesResponse(brakes=[_brake_message(brake) for brake in seen])

    def _may_lift(self, brake: Brake, caller: Caller) -> bool:
        own = brake.tenant == caller.tenant == tenant_of(brake.set_by)
        return own or self._door.is_platform_operator(caller)


def _read_order(request: operations_pb2.SetBrakeRequest, caller: Caller) -> Order:
    try:
        kind = BrakeKind(operations_pb2.BrakeKind.Name(request.kind).removeprefix(_KIND))
    except ValueError as error:  # unspecified, or one that a later broker knows
        raise Refused(
            Reason.REASON_REQUEST_INVALID,
            "the brake is not set: kind",
            violations=[Violation("kind", f"must be one of {', '.join(BrakeKind)}")],
        ) from error
    tenant = request.tenant if kind is BrakeKind.ALL else request.tenant or caller.tenant
    return Order(kind, tenant, request.value, request.reason)


def _select(found: Iterable[ListedLease], agent: str, tool: str) -> Iterable[ListedLease]:
    """Keep those of an agent, or of a tool or service."""
    return (
        one
        for one in found
        if agent in ("", one.call.agent) and tool in ("", one.call.method, one.call.method.rpartition("/")[0])
    )


def _lease_message(one: ListedLease) -> operations_pb2.Lease:
    call, lease = one.call, one.lease
    return operations_pb2.Lease(
        state=f"STATE_{one.state}",
        call_id=call.call_id,
        tenant=call.tenant,
        environment=call.environment,
        agent=call.agent,
        subject=call.subject,
        tool=call.method,
        grant_id=call.grant_id,
        credential=lease.credential,
        engine=lease.engine,
        role=lease.role,
        username=lease.username,
        lease_id=lease.lease_id,
        accessor=lease.accessor,
        minted=timestamp(lease.minted),
        expires=timestamp(lease.expires),
        tries=one.tries,
        last_error=one.last_error,
    )


def _brake_message(brake: Brake) -> operations_pb2.Brake:
    return operations_pb2.Brake(
        id=brake.brake_id,
        kind=f"{_KIND}{brake.kind}",
        tenant=brake.tenant,
        value=brake.value,
        reason=brake.reason,
        set_by=brake.set_by,
        set=timestamp(brake.set_at),
    )
