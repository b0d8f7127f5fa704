"""The asynchronous client: the same as `Client`, for one event loop."""
# ruff: noqa: ASYNC109 - a timeout here bounds all tries, and each try is told its part of it

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc

from toolcrib.client import answers, requests
from toolcrib.client.answers import Answer, Arguments, CallReport, Tool, ToolDescription, Workflow
from toolcrib.client.artefacts import PartCheck
from toolcrib.client.attempts import Attempts
from toolcrib.client.credentials import Credentials, Token, read_profile
from toolcrib.client.requests import CHANNEL_OPTIONS, CallTerms, Effects, Metadata, bearer, no_token
from toolcrib.client.trailers import Trailers, read_error, read_trailers
from toolcrib.v1 import broker_pb2, broker_pb2_grpc, workflows_pb2_grpc

ResponseT = TypeVar("ResponseT")


class AsyncClient:
    """Calls tools, and reads what became of calls; each method does what the one of `Client` does.

    The channel is opened by the first call, in the event loop that runs then, and stays with it.

    Example:
        async with AsyncClient.from_profile("clients/refund-desk") as client:
            answer = await client.invoke("shop.v1.Orders/LookupOrder", {"orderId": "A-1042"})

    Args:
        open_channel: Opens the channel, which is closed with the client.
        token: A bearer token, where the channel has no client certificate.
        attempt_timeout: Seconds that one try may take at most; None: all that is left of the call's timeout.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        *,
        token: Token | None = None,
        attempt_timeout: float | None = None,
    ) -> None:
        self._open_channel = open_channel
        self._channel: grpc.aio.Channel | None = None
        self._token = token
        self._attempt_timeout = attempt_timeout
        self._effects = Effects()
        self._is_closed = False

    @classmethod
    def connect(cls, address: str, credentials: Credentials, *, attempt_timeout: float | None = None) -> Self:
        """Read the credentials for a channel ("host:port"), always over TLS.

        Raises:
            ProfileInvalid: A file of the credentials cannot be read.
        """
        secured = credentials.channel_credentials()
        token = credentials if isinstance(credentials, Token) else None

        def open_channel() -> grpc.aio.Channel:
            return grpc.aio.secure_channel(address, secured, options=CHANNEL_OPTIONS)

        return cls(open_channel, token=token, attempt_timeout=attempt_timeout)

    @classmethod
    def from_profile(cls, folder: Path | str, *, attempt_timeout: float | None = None) -> Self:
        """Take the identity of a folder with profile.toml, as `toolcrib dev` writes them.

        Raises:
            ProfileInvalid: It cannot be used.
        """
        profile = read_profile(folder)
        return cls.connect(profile.address, profile.credentials, attempt_timeout=attempt_timeout)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, for generated stubs; only while an event loop runs."""
        if self._channel is None:
            asyncio.get_running_loop()
            self._channel = self._open_channel()
        return self._channel

    async def close(self) -> None:
        """Close the channel; calls on their way end as `Unreachable`."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """List the tools of the tenant, by name.

        Raises:
            ToolcribError: Any of its kinds.
        """
        pages, attempts = requests.ToolPages(), self._begin_read(timeout)
        while pages.is_open:
            pages.take((await self._send(self._broker.ListTools, pages.request(), attempts))[0])
        for tool in pages.found:
            self._effects.learn(tool)
        return pages.found

    async def describe(
        self, name: str, strict: bool = False, *, version: str | None = None, timeout: float | None = None
    ) -> ToolDescription:
        """Describe one tool; see `Client.describe`.

        Raises:
            ToolcribError: Any of its kinds.
        """
        request = requests.describe_tool(name, version, strict)
        described = answers.described(await self._read(self._broker.DescribeTool, request, timeout))
        if not version:
            self._effects.learn(described.tool)
        return described

    async def invoke(  # noqa: PLR0913 - one parameter a thing that may differ
        self,
        name: str,
        arguments: Arguments,
        *,
        key: str | None = None,
        environment: str | None = None,
        workflow: str | None = None,
        timeout: float | None = None,
        tool_version: str | None = None,
    ) -> Answer[dict[str, Any]]:
        """Call a tool with JSON arguments; see `Client.invoke`.

        A cancelled task stops waiting; a write that has begun goes on at the broker.

        Raises:
            Refused: Nothing happened.
            Failed: It was allowed, and went wrong.
            Unreachable: No answer came; ask again with the error's key.
        """
        terms = CallTerms(key, environment, workflow, tool_version, timeout)
        attempts = terms.begin(is_read=self._effects.is_read(name), longest_seconds=self._attempt_timeout)
        request = terms.message(name, arguments, attempts.key)
        response, trailers = await self._send(self._broker.Invoke, request, attempts)
        return answers.invoked(response, trailers, attempts)

    async def call(
        self,
        method: Callable[..., Awaitable[ResponseT]],
        request: Any,
        *,
        is_read: bool = False,
        terms: CallTerms | None = None,
    ) -> Answer[ResponseT]:
        """Call a method of a stub that was generated for a tool, on `client.channel`; see `Client.call`.

        Raises:
            ToolcribError: Any of its kinds.
        """
        chosen = terms or CallTerms()
        attempts = chosen.begin(is_read=is_read, longest_seconds=self._attempt_timeout)
        response, trailers = await self._send(method, request, attempts, chosen.metadata(attempts.key))
        return answers.called(response, trailers, attempts.key)

    async def get_call(
        self, call_id: str, *, workflow: str | None = None, timeout: float | None = None
    ) -> CallReport:
        """Read what became of a call; see `Client.get_call`.

        Raises:
            ToolcribError: Any of its kinds.
        """
        request = broker_pb2.GetCallRequest(call_id=call_id)
        return answers.reported(await self._read(self._broker.GetCall, request, timeout, workflow))

    async def read_artefact(
        self, call_id: str, name: str, *, workflow: str | None = None, timeout: float | None = None
    ) -> AsyncIterator[bytes]:
        """Read a file that a call gave back, part by part; see `Client.read_artefact`.

        Raises:
            ToolcribError: Any of its kinds; RESULT_INVALID, the parts are not the file that was announced.
        """
        check = PartCheck(call_id, name)
        while check.is_open:
            part = await self._read(self._broker.GetArtefact, check.request(), timeout, workflow)
            check.take(part)
            yield part.content

    async def open_workflow(
        self,
        agent: str,
        *,
        environment: str | None = None,
        description: str = "",
        ttl_seconds: int = 0,
        timeout: float | None = None,
    ) -> Workflow:
        """Open a workflow, as an orchestrator, for an agent; a lost answer leaves an unused one.

        Raises:
            ToolcribError: Any of its kinds.
        """
        request = requests.open_workflow(agent, environment, description, ttl_seconds)
        stub = workflows_pb2_grpc.WorkflowsStub(self.channel)
        return answers.opened(await self._read(stub.OpenWorkflow, request, timeout))

    @property
    def _broker(self) -> Any:
        return broker_pb2_grpc.BrokerStub(self.channel)

    def _begin_read(self, timeout: float | None) -> Attempts:
        return Attempts.begin("", timeout, is_read=True, longest_seconds=self._attempt_timeout)

    async def _read(
        self, rpc: Callable[..., Any], request: Any, timeout: float | None, workflow: str | None = None
    ) -> Any:
        metadata = CallTerms(workflow=workflow).metadata("")
        return (await self._send(rpc, request, self._begin_read(timeout), metadata))[0]

    async def _send(
        self, rpc: Callable[..., Any], request: Any, attempts: Attempts, metadata: Metadata = ()
    ) -> tuple[Any, Trailers]:
        """Send a request until there is an answer, or an error that ends the call."""
        while True:
            sent = (*metadata, *await self._identify(attempts))
            try:
                return await _finish(rpc(request, timeout=attempts.seconds, metadata=sent))
            except grpc.RpcError as error:
                said = read_error(error)
                wait = attempts.wait_after(said)
                if wait is None:
                    raise said from error
            await asyncio.sleep(wait)
            if self._is_closed:
                raise said

    async def _identify(self, attempts: Attempts) -> Metadata:
        if self._token is None:
            return ()
        source = self._token.token
        try:
            async with asyncio.timeout(attempts.seconds):
                return bearer(source if isinstance(source, str) else await _ask(source))
        except Exception as error:
            raise no_token(error, attempts) from error


async def _finish(call: Any) -> tuple[Any, Trailers]:
    """Await a call; a cancellation leaves as it came.

    grpc.aio raises a CancelledError of its own in its place. anyio, and the hosts that are built on it, know
    theirs by what stands in it: they took gRPC's for a stranger's, and ended everything around the call.

    Raises:
        grpc.RpcError: It has no answer; CANCELLED, the client was closed.
    """
    waiting = asyncio.ensure_future(_read_answer(call))
    try:
        await asyncio.wait({waiting})
    except asyncio.CancelledError:
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        waiting.cancel()
        raise
    if waiting.cancelled():
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, "the client was closed")
    return waiting.result()


async def _read_answer(call: Any) -> tuple[Any, Trailers]:
    response = await call
    return response, read_trailers(await call.trailing_metadata())


async def _ask(source: Callable[[], str | Awaitable[str]]) -> str:
    """Ask for a token; a synchronous function may wait for an issuer, so it does so off the loop."""
    found = source() if inspect.iscoroutinefunction(source) else await asyncio.to_thread(_take, source)
    return await found if inspect.isawaitable(found) else found


def _take(source: Callable[[], str | Awaitable[str]]) -> str | Awaitable[str]:
    try:
        return source()
    except StopIteration as error:  # no future can hold one: who waits for it would wait without end
        raise RuntimeError("the token function has no more tokens") from error
