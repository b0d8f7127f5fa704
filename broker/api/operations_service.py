"""`toolcrib.v1.Operations`: what only a person may decide about calls and tenants."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from broker.api.door import Door
from broker.api.messages import call_message
from broker.decision import Decider, Decision
from broker.errors import Refused
from broker.model import Caller
from broker.outlast import outlast
from broker.store.protocol import AuditEvent, Store
from toolcrib.v1 import operations_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation

SERVICE = operations_pb2.DESCRIPTOR.services_by_name["Operations"]


class OperationsService:
    """The door for operators."""

    def __init__(self, door: Door, decider: Decider, store: Store, clock: Callable[[], datetime]) -> None:
        self._decider, self._store, self._clock = decider, store, clock
        base = f"/{SERVICE.full_name}/"
        self.ResolveCall = door.guard(base + "ResolveCall", self._resolve_call)
        self.EraseTenant = door.guard(base + "EraseTenant", self._erase_tenant)

    async def _resolve_call(
        self, request: operations_pb2.ResolveCallRequest, caller: Caller
    ) -> operations_pb2.ResolveCallResponse:
        decision = Decision(request.happened, request.result_json, request.reason)
        record = await outlast(self._decider.decide(request.call_id, decision, caller))
        return operations_pb2.ResolveCallResponse(call=call_message(record, with_log=True))

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
        event = AuditEvent("tenant.erased", caller.tenant, "", self._clock(), actor=caller.spiffe_id)
        await outlast(self._store.erase_tenant(caller.tenant, event))
        return operations_pb2.EraseTenantResponse()
