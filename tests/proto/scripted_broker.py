"""A broker that answers what a test says, over a real gRPC server; and one face for both clients."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc

from broker.api.status import abort
from broker.errors import CallError, Failed, Refused
from toolcrib.client import AsyncClient, Client
from toolcrib.v1 import (
    broker_pb2,
    broker_pb2_grpc,
    options_pb2,
    reasons_pb2,
    workflows_pb2,
    workflows_pb2_grpc,
)
from toolcrib.v1.reasons_pb2 import Reason

READ, WRITE = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/IssueRefund"
FILE = bytes(range(256)) * 10

Step = Callable[[Any], Awaitable[None]]


def refuse(reason: str, *, after: float | None = 0.01, **details: str) -> Step:
    """Answer with a refusal, as the broker writes it."""
    return _raise(Refused(_number(reason), "no", retry_after_seconds=after, details=details))


def fail(reason: str, *, after: float | None = 0.01, **details: str) -> Step:
    """Answer with a failure, as the broker writes it."""
    return _raise(Failed(_number(reason), "no", retry_after_seconds=after, details=details))


def _number(reason: str) -> Reason:
    return reasons_pb2.Reason.Value(f"REASON_{reason}")  # type: ignore[return-value]


def _raise(error: CallError) -> Step:
    async def step(context: Any) -> None:
        await abort(context, error, {"toolcrib-call-id": "c1"})

    return step


def end(code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> Step:
    """Answer with a bare status and any trailers."""

    async def step(context: Any) -> None:
        await context.abort(code, "bare", trailers)

    return step


async def hang(_context: Any) -> None:
    """Do not answer."""
    await asyncio.sleep(30)


class ScriptedBroker(broker_pb2_grpc.BrokerServicer, workflows_pb2_grpc.WorkflowsServicer):
    """Takes one step for each request; then all goes well.

    Attributes:
        seen: The requests to Invoke.
        metadata: Of each request to Invoke.
        seconds: What each had left of its deadline.
        result_json: What Invoke answers with.
        list_page: Answers ListTools.
        read_part: Answers GetArtefact.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.seen: list[broker_pb2.InvokeRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.result_json = '{"ok": true}'
        self.list_page: Callable[[str], broker_pb2.ListToolsResponse] = _list_page
        self.read_part: Callable[[int], broker_pb2.GetArtefactResponse] = self._read_part
        self.file = FILE
        self.parts = 0
        self.address = "127.0.0.1:0"

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen; on the same port as before, after the first time."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        broker_pb2_grpc.add_BrokerServicer_to_server(self, self._server)
        workflows_pb2_grpc.add_WorkflowsServicer_to_server(self, self._server)
        self._server.add_generic_rpc_handlers((_Tools(self),))
        if credentials is None:
            port = self._server.add_insecure_port(self.address)
        else:
            port = self._server.add_secure_port("localhost:0", credentials)
        self.address = f"{'127.0.0.1' if credentials is None else 'localhost'}:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Close every channel."""
        await self._server.stop(None)

    async def take_step(self, context: Any) -> None:
        """Do what the script says next."""
        self.metadata.append(dict(context.invocation_metadata()))
        self.seconds.append(context.time_remaining())
        if self.steps:
            await self.steps.pop(0)(context)

    async def Invoke(self, request: broker_pb2.InvokeRequest, context: Any) -> broker_pb2.InvokeResponse:
        self.seen.append(request)
        await self.take_step(context)
        context.set_trailing_metadata((("toolcrib-artefacts", "2"),))
        return broker_pb2.InvokeResponse(
            call_id="c1", result_json=self.result_json, replayed=False, labels=["untrusted"]
        )

    async def ListTools(
        self, request: broker_pb2.ListToolsRequest, context: Any
    ) -> broker_pb2.ListToolsResponse:
        return self.list_page(request.page_token)

    async def DescribeTool(
        self, request: broker_pb2.DescribeToolRequest, context: Any
    ) -> broker_pb2.DescribeToolResponse:
        tool = broker_pb2.Tool(name=request.name, effect=options_pb2.READ)
        schema = '{"strict": true}' if request.strict_schema else "{}"
        return broker_pb2.DescribeToolResponse(
            tool=tool, request_json_schema=schema, response_json_schema="{}"
        )

    async def GetCall(self, request: broker_pb2.GetCallRequest, context: Any) -> broker_pb2.GetCallResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        call = broker_pb2.Call(call_id=request.call_id, state=broker_pb2.SUCCEEDED)
        return broker_pb2.GetCallResponse(call=call, result_json='{"ok": true}')

    async def GetArtefact(
        self, request: broker_pb2.GetArtefactRequest, context: Any
    ) -> broker_pb2.GetArtefactResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        self.parts += 1
        return self.read_part(request.offset)

    def _read_part(self, offset: int) -> broker_pb2.GetArtefactResponse:
        part = self.file[offset : offset + 1000]
        following = offset + len(part)
        return broker_pb2.GetArtefactResponse(
            content=part,
            sha256=hashlib.sha256(FILE).hexdigest(),
            size_bytes=len(FILE),
            next_offset=following if following < len(FILE) else 0,
        )

    async def OpenWorkflow(
        self, request: workflows_pb2.OpenWorkflowRequest, context: Any
    ) -> workflows_pb2.OpenWorkflowResponse:
        opened = workflows_pb2.OpenWorkflowResponse(handle=f"h-{request.agent}", workflow_id="w1")
        opened.expires.FromSeconds(1_800_000_000)
        return opened


def _list_page(token: str) -> broker_pb2.ListToolsResponse:
    if not token:
        tool = broker_pb2.Tool(name=READ, effect=options_pb2.READ, scope="orders.read")
        return broker_pb2.ListToolsResponse(tools=[tool], next_page_token="2")
    tool = broker_pb2.Tool(name=WRITE, effect=options_pb2.WRITE, reach=options_pb2.OUTWARD)
    return broker_pb2.ListToolsResponse(tools=[tool])


class _Tools(grpc.GenericRpcHandler):
    """A tool's own service: gives its request back."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self._broker = broker

    def service(self, details: Any) -> Any:
        if not details.method.startswith("/shop.v1."):
            return None

        async def serve(request: bytes, context: Any) -> bytes:
            await self._broker.take_step(context)
            context.set_trailing_metadata(
                (
                    ("toolcrib-call-id", "c9"),
                    ("toolcrib-replayed", "true"),
                    ("toolcrib-labels", "a,untrusted"),
                )
            )
            return request

        return grpc.unary_unary_rpc_method_handler(serve)


class Face:
    """Either client, used the same way: a synchronous one works in a thread."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self.client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if isinstance(self.client, Client):
                return await asyncio.to_thread(method, *arguments, **options)
            return await method(*arguments, **options)

        return call

    async def read_artefact(self, call_id: str, name: str) -> list[bytes]:
        """Read all parts."""
        if isinstance(self.client, Client):
            client = self.client
            return await asyncio.to_thread(lambda: list(client.read_artefact(call_id, name)))
        return [part async for part in self.client.read_artefact(call_id, name)]

    async def close(self) -> None:
        """Close the client."""
        closed = self.client.close()
        if inspect.isawaitable(closed):
            await closed


def plain_client(kind: str, address: str, **options: Any) -> Client | AsyncClient:
    """Open a channel without TLS: to a server of the test's own."""
    if kind == "sync":
        return Client(grpc.insecure_channel(address, options=_OPTIONS), **options)
    return AsyncClient(lambda: grpc.aio.insecure_channel(address, options=_OPTIONS), **options)


_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
