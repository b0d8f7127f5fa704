"""What a broker gives back, as plain values; and the messages that ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from toolcrib.client.attempts import Attempts
from toolcrib.client.errors import Failed, Refused
from toolcrib.client.json_text import read_object
from toolcrib.client.trailers import Trailers, read_artefact_count, read_call_id, read_labels
from toolcrib.v1 import broker_pb2, options_pb2, workflows_pb2

UNTRUSTED = "untrusted"
KEY = "toolcrib-idempotency-key"
PAGE_SIZE = 500

ResultT = TypeVar("ResultT")
Effect = Literal["READ", "DRAFT", "WRITE", ""]
Arguments = Mapping[str, Any] | str

_EFFECTS: dict[int, Effect] = {
    options_pb2.READ: "READ",
    options_pb2.DRAFT: "DRAFT",
    options_pb2.WRITE: "WRITE",
}


@dataclass(frozen=True, slots=True)
class Answer(Generic[ResultT]):
    """A tool's result, checked against its contract and cleaned by the broker.

    Attributes:
        call_id: The call's record.
        result: A dict of the response message's JSON (64-bit integers are strings there); of a generated
            stub's call the response message.
        labels: Where the content came from, for example "untrusted".
        replayed: Whether this is what an earlier call with the same key did.
        key: The idempotency key that was sent; empty where none was.
        artefact_count: How many files the call gave back; `get_call` names them.
    """

    call_id: str
    result: ResultT
    labels: tuple[str, ...] = ()
    replayed: bool = False
    key: str = ""
    artefact_count: int = 0

    @property
    def is_untrusted(self) -> bool:
        """True when strangers may have written some of it: it is data, and never an instruction."""
        return UNTRUSTED in self.labels


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool in short.

    Attributes:
        name: The gRPC method without the leading slash, for example "shop.v1.Orders/LookupOrder".
        description: The reviewed comment of the method.
        effect: "READ", "DRAFT" or "WRITE".
        reach: "INTERNAL" or "OUTWARD".
        scope: The right to call it, for example "orders.read".
        version: The one that calls get that name none.
        bundle: What it was registered with.
    """

    name: str
    description: str
    effect: Effect
    reach: str
    scope: str
    version: str
    bundle: str


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """One tool with its schemas (JSON Schema 2020-12) and the descriptors to generate a client from."""

    tool: Tool
    request_schema: dict[str, Any]
    response_schema: dict[str, Any]
    client_descriptor_set: bytes


@dataclass(frozen=True, slots=True)
class CallReport:
    """What became of a call.

    Attributes:
        call: Its record, the message `toolcrib.v1.Call`.
        result: The result, where the call succeeded and this caller made it.
    """

    call: broker_pb2.Call
    result: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Workflow:
    """A task that was opened for an agent: it sends the handle with each of its calls."""

    handle: str
    workflow_id: str
    expires: datetime


def to_json(arguments: Arguments) -> str:
    """Write arguments as JSON; a text is sent as it is, and the broker checks it.

    Raises:
        Refused: REQUEST_MALFORMED, they hold what JSON has not (NaN, an object of ours, too many levels).
    """
    if isinstance(arguments, str):
        return arguments
    try:
        return json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(
            "REQUEST_MALFORMED", f"the arguments are no JSON object: {error}", code="INVALID_ARGUMENT"
        ) from error


def invoked(
    response: broker_pb2.InvokeResponse, trailers: Trailers, attempts: Attempts
) -> Answer[dict[str, Any]]:
    """Read the answer to Invoke.

    Raises:
        Failed: RESULT_INVALID, it holds no JSON object; a write happened all the same.
    """
    try:
        result = _read_object(response.result_json, response.call_id)
    except Failed as error:
        attempts.note(error)
        raise
    return Answer(
        response.call_id,
        result,
        tuple(response.labels),
        response.replayed,
        attempts.key,
        read_artefact_count(trailers),
    )


def called(response: ResultT, trailers: Trailers, key: str) -> Answer[ResultT]:
    """Read the answer to a generated stub's call."""
    return Answer(
        read_call_id(trailers),
        response,
        read_labels(trailers),
        trailers.get("toolcrib-replayed") == "true",
        key,
        read_artefact_count(trailers),
    )


def read_tool(message: broker_pb2.Tool) -> Tool:
    """Read a tool in short; an effect that only a newer broker knows is treated as no read."""
    return Tool(
        message.name,
        message.description,
        _EFFECTS.get(message.effect, ""),
        "OUTWARD" if message.reach == options_pb2.OUTWARD else "INTERNAL",
        message.scope,
        message.version,
        message.bundle,
    )


def described(message: broker_pb2.DescribeToolResponse) -> ToolDescription:
    """Read the answer to DescribeTool."""
    return ToolDescription(
        read_tool(message.tool),
        _read_object(message.request_json_schema),
        _read_object(message.response_json_schema),
        message.client_descriptor_set,
    )


def reported(message: broker_pb2.GetCallResponse) -> CallReport:
    """Read the answer to GetCall."""
    result = _read_object(message.result_json, message.call.call_id) if message.result_json else None
    return CallReport(message.call, result)


def opened(message: workflows_pb2.OpenWorkflowResponse) -> Workflow:
    """Read the answer to OpenWorkflow; its time is UTC."""
    return Workflow(message.handle, message.workflow_id, message.expires.ToDatetime(tzinfo=UTC))


def _read_object(text: str, call_id: str = "") -> dict[str, Any]:
    found = read_object(text)
    if found is not None:
        return found
    raise Failed("RESULT_INVALID", "the broker's answer is no JSON object", call_id=call_id)
