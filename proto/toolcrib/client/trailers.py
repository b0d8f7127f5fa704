"""Reads what came back beside an answer or instead of one: gRPC's trailers.

Rules:
1. What cannot be read is left out; a broken or hostile trailer never raises.
2. A reason is believed only from the domain "toolcrib".
3. The parser is the package's own copy of google.rpc's messages: nothing else has to be installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from toolcrib.client.errors import ToolcribError, Unreachable, Violation
from toolcrib.client.rules import rule_of
from toolcrib.v1 import status_pb2

DOMAIN = "toolcrib"
DETAILS = "grpc-status-details-bin"
CALL_ID = "toolcrib-call-id"
# A longer delay is none that a program waits for.
MAX_RETRY_SECONDS = 3600.0

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COUNT = re.compile(r"[0-9]{1,6}")

Trailers = Mapping[str, str | bytes]


@dataclass(slots=True)
class StatusDetails:
    """What the rich status of an error says; empty where it says nothing that can be read."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    retry_after_seconds: float | None = None


def read_trailers(metadata: Any) -> Trailers:
    """Take gRPC's metadata by name; of a name that comes twice, the first."""
    found: dict[str, str | bytes] = {}
    for name, value in metadata or ():
        found.setdefault(name, value)
    return found


def read_error(error: grpc.RpcError) -> ToolcribError:
    """Turn gRPC's error, of a synchronous or an asynchronous call, into one of ours."""
    call: Any = error
    trailers = read_trailers(call.trailing_metadata())
    found = read_details(trailers.get(DETAILS))
    code: str = call.code().name
    kind = rule_of(found.reason).family if found.reason else Unreachable
    return kind(
        found.reason or code,
        str(call.details() or "") or code,
        violations=found.violations,
        details=found.metadata,
        retry_after_seconds=found.retry_after_seconds,
        call_id=read_call_id(trailers),
        code=code,
        labels=read_labels(trailers),
    )


def read_details(raw: object) -> StatusDetails:
    """Read the trailer `grpc-status-details-bin`; what others wrote there is nothing."""
    found = StatusDetails()
    try:
        status = status_pb2.Status.FromString(raw if isinstance(raw, bytes) else b"")
        for detail in status.details:
            _read_detail(detail, found)
    except DecodeError:
        return StatusDetails()
    return found


def read_call_id(trailers: Trailers) -> str:
    """Read the call's id; what is none (a line break for somebody's log, say) is left out."""
    value = trailers.get(CALL_ID, "")
    return value if isinstance(value, str) and _CALL_ID.fullmatch(value) else ""


def read_labels(trailers: Trailers) -> tuple[str, ...]:
    """Read the labels of an answer or an error."""
    value = trailers.get("toolcrib-labels", "")
    return tuple(label for label in value.split(",") if label) if isinstance(value, str) else ()


def read_artefact_count(trailers: Trailers) -> int:
    """Read how many files the call gave back."""
    value = trailers.get("toolcrib-artefacts", "")
    return int(value) if isinstance(value, str) and _COUNT.fullmatch(value) else 0


def _read_detail(detail: Any, found: StatusDetails) -> None:
    """Read one detail by the end of its type's name: ours are wire copies of google.rpc's."""
    kind = detail.type_url.rpartition("/")[2]
    if kind == "google.rpc.ErrorInfo":
        info = status_pb2.ErrorInfo.FromString(detail.value)
        if info.domain == DOMAIN and _REASON.fullmatch(info.reason):
            found.reason, found.metadata = info.reason, dict(info.metadata)
    elif kind == "google.rpc.BadRequest":
        bad = status_pb2.BadRequest.FromString(detail.value)
        found.violations += [Violation(item.field, item.description) for item in bad.field_violations]
    elif kind == "google.rpc.RetryInfo":
        delay = status_pb2.RetryInfo.FromString(detail.value).retry_delay
        found.retry_after_seconds = min(max(delay.seconds + delay.nanos / 1e9, 0.0), MAX_RETRY_SECONDS)
