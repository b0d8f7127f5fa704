"""What both clients send: the messages, the metadata, and the settings of a channel."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolcrib.client.answers import KEY, PAGE_SIZE, Arguments, Tool, read_tool, to_json
from toolcrib.client.attempts import Attempts, make_key
from toolcrib.client.errors import Failed, Refused, Unreachable
from toolcrib.v1 import broker_pb2, workflows_pb2

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# More than any tenant has; a broker that goes on without end is stopped here, or by the deadline.
MAX_TOOLS = 20_000
CHANNEL_OPTIONS = (
    # What is sent again, and when, is decided here, and not by gRPC or by a record in somebody's DNS.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A broker that restarts is back in a second; gRPC's own patience grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)

Metadata = tuple[tuple[str, str], ...]

_TOKEN = re.compile(r"[\x21-\x7e]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class CallTerms:
    """What is about one call and not about its tool; the same for all its tries.

    Attributes:
        key: The idempotency key; None: one is made unless the tool is known to be a READ; "": none is sent.
        environment: One of the broker's; empty: its first one.
        workflow: The handle of the task that it belongs to.
        tool_version: A version or an alias; empty: "stable".
        timeout: Seconds for all tries and the waiting between them.
    """

    key: str | None = None
    environment: str | None = None
    workflow: str | None = None
    tool_version: str | None = None
    timeout: float | None = None

    def begin(self, *, is_read: bool, longest_seconds: float | None) -> Attempts:
        """Begin the tries."""
        key = self.key if self.key is not None else "" if is_read else make_key()
        return Attempts.begin(key, self.timeout, is_read=is_read, longest_seconds=longest_seconds)

    def message(self, tool: str, arguments: Arguments, key: str) -> broker_pb2.InvokeRequest:
        """Make the request to Invoke.

        Raises:
            Refused: The arguments are no JSON, or a text holds half a character.
        """
        try:
            return broker_pb2.InvokeRequest(
                tool=tool.removeprefix("/"),
                arguments_json=to_json(arguments),
                idempotency_key=key,
                environment=self.environment or "",
                tool_version=self.tool_version or "",
                workflow=self.workflow or "",
            )
        except UnicodeEncodeError as error:
            raise Refused(
                "REQUEST_MALFORMED", "the call holds text that is no UTF-8", code="INVALID_ARGUMENT"
            ) from error

    def metadata(self, key: str) -> Metadata:
        """Make the metadata of a call without a field for it.

        gRPC's own error about a value that it cannot send shows all values, and so the token.

        Raises:
            Refused: METADATA_INVALID, a value cannot be sent.
        """
        named = {
            KEY: key,
            "toolcrib-environment": self.environment,
            "toolcrib-workflow": self.workflow,
            "toolcrib-tool-version": self.tool_version,
        }
        for name, value in named.items():
            if not _VALUE.fullmatch(value or ""):
                raise Refused("METADATA_INVALID", f"{name} must be printable ASCII", code="INVALID_ARGUMENT")
        return tuple((name, value) for name, value in named.items() if value)


class TokenInvalid(Exception):
    """What a token function gave is no token."""


class Effects:
    """Which tools are known to be reads: they need no key."""

    def __init__(self) -> None:
        self._is_read: dict[str, bool] = {}

    def learn(self, tool: Tool) -> None:
        """Note what the broker says of a tool."""
        self._is_read[tool.name] = tool.effect == "READ"

    def is_read(self, tool: str) -> bool:
        """Tell whether a tool is known to be a read; what is not known may be a write."""
        return self._is_read.get(tool.removeprefix("/"), False)


def bearer(token: object) -> Metadata:
    """Make the metadata that says who calls.

    Raises:
        TokenInvalid: It is no token; a line break in it would be another header.
    """
    if isinstance(token, str) and _TOKEN.fullmatch(token):
        return (("authorization", f"Bearer {token}"),)
    raise TokenInvalid("it is empty, or holds what no token holds")


def no_token(error: Exception, attempts: Attempts) -> Unreachable:
    """Say that a try was not sent; of what went wrong only the kind, as its words may hold the token."""
    cause = str(error) if isinstance(error, TokenInvalid) else type(error).__name__
    said = Unreachable("UNAUTHENTICATED", f"there is no token to send: {cause}", code="UNAUTHENTICATED")
    attempts.tell(said)
    return said


class ToolPages:
    """Where to read on in the list of tools, and what was read.

    Attributes:
        found: The tools so far.
        is_open: Whether there is more.
    """

    def __init__(self) -> None:
        self.found: list[Tool] = []
        self.is_open = True
        self._token = ""

    def request(self) -> broker_pb2.ListToolsRequest:
        """Ask for the next page."""
        return broker_pb2.ListToolsRequest(page_size=PAGE_SIZE, page_token=self._token)

    def take(self, page: broker_pb2.ListToolsResponse) -> None:
        """Note a page.

        Raises:
            Failed: RESULT_INVALID, the list does not end.
        """
        self.found += [read_tool(tool) for tool in page.tools]
        before, self._token = self._token, page.next_page_token
        self.is_open = bool(self._token)
        if len(self.found) > MAX_TOOLS or (self.is_open and self._token == before):
            raise Failed("RESULT_INVALID", "the broker's list of tools does not end")


def describe_tool(name: str, version: str | None, strict: bool) -> broker_pb2.DescribeToolRequest:
    """Ask for a tool's schemas."""
    return broker_pb2.DescribeToolRequest(
        name=name.removeprefix("/"), version=version or "", strict_schema=strict
    )


def open_workflow(
    agent: str, environment: str | None, description: str, ttl_seconds: int
) -> workflows_pb2.OpenWorkflowRequest:
    """Ask for a workflow."""
    return workflows_pb2.OpenWorkflowRequest(
        agent=agent, environment=environment or "", description=description, ttl_seconds=ttl_seconds
    )
