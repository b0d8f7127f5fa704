"""The people of the demo: a reviewer who applies grants, an operator who reads what became of calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from toolcrib.v1 import broker_pb2, broker_pb2_grpc, grants_pb2, grants_pb2_grpc

GRANTS = Path(__file__).parent / "grants"
_RPC_SECONDS = 20.0
_END_SECONDS = 5.0


def read_grant_files(names: Sequence[str]) -> list[grants_pb2.GrantFile]:
    """Read files of the demo's grants folder."""
    return [grants_pb2.GrantFile(name=name, text=(GRANTS / name).read_text()) for name in names]


class Reviewer:
    """Applies grants, as a plan with a diff."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._grants = grants_pb2_grpc.GrantsStub(channel)

    async def apply(self, files: Sequence[grants_pb2.GrantFile]) -> list[tuple[str, str]]:
        """Replace the tenant's grant files.

        Returns:
            (kind, grant id) of each change, for example ("ADD", "desk-drafts-refunds").
        """
        plan = await self._grants.PlanGrants(grants_pb2.PlanGrantsRequest(files=files), timeout=_RPC_SECONDS)
        applied = await self._grants.ApplyGrants(
            grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest), timeout=_RPC_SECONDS
        )
        return [(grants_pb2.GrantChange.Kind.Name(change.kind), change.id) for change in applied.changes]


class Operator:
    """Reads calls and tools of the tenant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._broker = broker_pb2_grpc.BrokerStub(channel)

    async def client_view(self, tool: str) -> bytes:
        """Export the descriptors that client code is generated from."""
        described = await self._broker.DescribeTool(
            broker_pb2.DescribeToolRequest(name=tool), timeout=_RPC_SECONDS
        )
        return bytes(described.client_descriptor_set)

    async def sees_call(self, call_id: str) -> bool:
        """Tell whether this operator's tenant has such a call."""
        try:
            await self._broker.GetCall(broker_pb2.GetCallRequest(call_id=call_id), timeout=_RPC_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def read_call(self, call_id: str) -> broker_pb2.Call:
        """Read one call; waits a moment for the end of its leases and containers."""
        give_up = time.monotonic() + _END_SECONDS
        while True:
            answer: broker_pb2.GetCallResponse = await self._broker.GetCall(
                broker_pb2.GetCallRequest(call_id=call_id), timeout=_RPC_SECONDS
            )
            if is_over(answer.call) or time.monotonic() > give_up:
                return answer.call
            await asyncio.sleep(0.05)


def is_over(call: broker_pb2.Call) -> bool:
    """Tell whether nothing of a call is left: it has ended, its leases are dead, its containers gone."""
    return (
        call.HasField("ended")
        and all(lease.HasField("confirmed_dead") for lease in call.leases)
        and all(sandbox.HasField("gone") for sandbox in call.sandboxes)
    )
