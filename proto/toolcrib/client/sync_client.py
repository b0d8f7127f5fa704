"""The synchronous client: one channel to a broker, safe to use from several threads."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
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


class Client:
    """Calls tools, and reads what became of calls.

    Example:
        with Client.from_profile("clients/refund-desk") as client:
            answer = client.invoke("shop.v1.Orders/LookupOrder", {"orderId": "A-1042"})

    Args:
        channel: Closed with the client.
        token: A bearer token, where the channel has no client certificate.
        attempt_timeout: Seconds that one try may take at most; None: all that is left of the call's timeout.
    """

    def __init__(
        self, channel: grpc.Channel, *, token: Token | None = None, attempt_timeout: float | None = None
    ) -> None:
        self.channel = channel
        self._token = token
        self._attempt_timeout = attempt_timeout
        self._effects = Effects()
        self._is_closed = False
        self._broker = broker_pb2_grpc.BrokerStub(channel)
        self._workflows = workflows_pb2_grpc.WorkflowsStub(channel)

    @classmethod
    def connect(cls, address: str, credentials: Credentials, *, attempt_timeout: float | None = None) -> Self:
        """Open a channel ("host:port"), always over TLS; nothing is sent before the first call.

        Raises:
            ProfileInvalid: A file of the credentials cannot be read.
        """
        channel = grpc.secure_channel(address, credentials.channel_credentials(), options=CHANNEL_OPTIONS)
        token = credentials if isinstance(credentials, Token) else None
        return cls(channel, token=token, attempt_timeout=attempt_timeout)

    @classmethod
    def from_profile(cls, folder: Path | str, *, attempt_timeout: float | None = None) -> Self:
        """Open a channel as the identity of a folder with profile.toml, as `toolcrib dev` writes them.

        Raises:
            ProfileInvalid: It cannot be used.
        """
        profile = read_profile(folder)
        return cls.connect(profile.address, profile.credentials, attempt_timeout=attempt_timeout)

    def close(self) -> None:
        """Close the channel; calls on their way end as `Unreachable`."""
        self._is_closed = True
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """List the tools of the tenant, by name.

        Args:
            timeout: Seconds for all pages together; None: 60.

        Raises:
            ToolcribError: Any of its kinds.
        """
        pages, attempts = requests.ToolPages(), self._begin_read(timeout)
        while pages.is_open:
            pages.take((self._send(self._broker.ListTools, pages.request(), attempts))[0])
        for tool in pages.found:
            self._effects.learn(tool)
        return pages.found

    def describe(
        self, name: str, strict: bool = False, *, version: str | None = None, timeout: float | None = None
    ) -> ToolDescription:
        """Describe one tool.

        Args:
            name: The gRPC method, for example "shop.v1.Orders/LookupOrder".
            strict: A schema as model APIs take it in their strict mode.
            version: A version or an alias; None: "stable".
            timeout: Seconds.

        Raises:
            ToolcribError: Any of its kinds.
        """
        message = self._read(
            self._broker.DescribeTool, requests.describe_tool(name, version, strict), timeout
        )
        described = answers.described(message)
        if not version:
            self._effects.learn(described.tool)
        return described

    def invoke(  # noqa: PLR0913 - one parameter a thing that may differ
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
        """Call a tool with JSON arguments; sent again where that is safe, always with the same key.

        Args:
            name: The gRPC method, for example "shop.v1.Orders/LookupOrder".
            arguments: A dict, or the text of a JSON object.
            key: The idempotency key, to ask again about an earlier call; None: a new one where one is needed.
            environment: One of the broker's; None: its first one.
            workflow: The handle of the task that the call belongs to.
            timeout: Seconds for all tries and the waiting between them; None: 60.
            tool_version: A version or an alias; None: "stable".

        Raises:
            Refused: Nothing happened.
            Failed: It was allowed, and went wrong.
            Unreachable: No answer came; ask again with the error's key.
        """
        terms = CallTerms(key, environment, workflow, tool_version, timeout)
        attempts = terms.begin(is_read=self._effects.is_read(name), longest_seconds=self._attempt_timeout)
        request = terms.message(name, arguments, attempts.key)
        response, trailers = self._send(self._broker.Invoke, request, attempts)
        return answers.invoked(response, trailers, attempts)

    def call(
        self,
        method: Callable[..., ResponseT],
        request: Any,
        *,
        is_read: bool = False,
        terms: CallTerms | None = None,
    ) -> Answer[ResponseT]:
        """Call a method of a stub that was generated for a tool, on `client.channel`, as `invoke` does.

        Args:
            method: For example `orders_pb2_grpc.OrdersStub(client.channel).IssueRefund`.
            request: Its request message.
            is_read: Whether the tool is a READ: no key is made then.
            terms: Key, environment, workflow, version and timeout.

        Raises:
            ToolcribError: Any of its kinds.
        """
        chosen = terms or CallTerms()
        attempts = chosen.begin(is_read=is_read, longest_seconds=self._attempt_timeout)
        response, trailers = self._send(method, request, attempts, chosen.metadata(attempts.key))
        return answers.called(response, trailers, attempts.key)

    def get_call(
        self, call_id: str, *, workflow: str | None = None, timeout: float | None = None
    ) -> CallReport:
        """Read what became of a call.

        Args:
            call_id: The call.
            workflow: The handle of the task that reads; without it, it counts for all of the agent.
            timeout: Seconds.

        Raises:
            ToolcribError: Any of its kinds.
        """
        request = broker_pb2.GetCallRequest(call_id=call_id)
        return answers.reported(self._read(self._broker.GetCall, request, timeout, workflow))

    def read_artefact(
        self, call_id: str, name: str, *, workflow: str | None = None, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Read a file that a call gave back, part by part (up to 1 MiB); its hash is checked at the end.

        Args:
            call_id: The call.
            name: One of `get_call(call_id).call.artefacts`.
            workflow: As with `get_call`.
            timeout: Seconds for each part.

        Raises:
            ToolcribError: Any of its kinds; RESULT_INVALID, the parts are not the file that was announced.
        """
        check = PartCheck(call_id, name)
        while check.is_open:
            part = self._read(self._broker.GetArtefact, check.request(), timeout, workflow)
            check.take(part)
            yield part.content

    def open_workflow(
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
        return answers.opened(self._read(self._workflows.OpenWorkflow, request, timeout))

    def _begin_read(self, timeout: float | None) -> Attempts:
        return Attempts.begin("", timeout, is_read=True, longest_seconds=self._attempt_timeout)

    def _read(
        self, rpc: Callable[..., Any], request: Any, timeout: float | None, workflow: str | None = None
    ) -> Any:
        metadata = CallTerms(workflow=workflow).metadata("")
        return self._send(rpc, request, self._begin_read(timeout), metadata)[0]

    def _send(
        self, rpc: Any, request: Any, attempts: Attempts, metadata: Metadata = ()
    ) -> tuple[Any, Trailers]:
        """Send a request until there is an answer, or an error that ends the call."""
        while True:
            sent = (*metadata, *self._identify(attempts))
            try:
                response, call = rpc.with_call(request, timeout=attempts.seconds, metadata=sent)
                return response, read_trailers(call.trailing_metadata())
            except grpc.RpcError as error:
                said = read_error(error)
                wait = attempts.wait_after(said)
                if wait is None:
                    raise said from error
            time.sleep(wait)
            if self._is_closed:
                raise said

    def _identify(self, attempts: Attempts) -> Metadata:
        if self._token is None:
            return ()
        source = self._token.token
        if inspect.iscoroutinefunction(source):
            raise TypeError("an asynchronous token function is for AsyncClient")
        try:
            return bearer(source if isinstance(source, str) else source())
        except Exception as error:
            raise no_token(error, attempts) from error
