"""A caller for tests: any request, right or wrong, over a real channel, with all that comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from broker.client import Profile
from tools.contract import Contract


@dataclass(frozen=True)
class Reply:
    """What a caller sees of one call."""

    code: str
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    violations: Mapping[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None
    trailers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def call_id(self) -> str:
        return str(self.trailers.get("toolcrib-call-id", ""))

    @property
    def replayed(self) -> bool:
        return self.trailers.get("toolcrib-replayed") == "true"


class ToolCaller:
    """Calls tools natively, as one identity."""

    def __init__(self, profile: Profile, contracts: Mapping[str, Contract]) -> None:
        self.profile = profile
        self.channel = profile.connect()
        self._contracts = contracts

    def __enter__(self) -> ToolCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def encode(self, method: str, arguments: Mapping[str, Any]) -> bytes:
        """Encode arguments without checking any rule of the contract."""
        kind = message_factory.GetMessageClass(self._contracts[method].request_descriptor)
        return json_format.ParseDict(dict(arguments), kind()).SerializeToString()

    def start(self, method: str, arguments: Mapping[str, Any] | bytes, **options: Any) -> Any:
        """Begin a call and return gRPC's future."""
        raw = arguments if isinstance(arguments, bytes) else self.encode(method, arguments)
        send = self.channel.unary_unary(f"/{method}", request_serializer=None, response_deserializer=None)
        return send.future(raw, timeout=options.pop("timeout", 30), metadata=make_metadata(options))

    def call(self, method: str, arguments: Mapping[str, Any] | bytes, **options: Any) -> Reply:
        """Call a tool; `key`, `environment`, `version` and `workflow` become metadata."""
        return self.finish(method, self.start(method, arguments, **options))

    def finish(self, method: str, future: Any) -> Reply:
        """Wait for a call that was begun."""
        try:
            raw = future.result()
        except grpc.RpcError as error:
            return read_error(error)
        result = json.loads(self._contracts[method].result_json(raw))
        return Reply("OK", result, trailers=dict(future.trailing_metadata() or ()))


def make_metadata(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"key": "toolcrib-idempotency-key", "version": "toolcrib-tool-version"}
    return [(names.get(name, f"toolcrib-{name}"), value) for name, value in options.items() if value]


def read_error(error: Any) -> Reply:
    """Read a rich status as a client would."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    found_retry = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        found_retry |= detail.Unpack(retry)
    return Reply(
        error.code().name,
        reason=info.reason,
        message=error.details(),
        details=dict(info.metadata),
        violations={item.field: item.description for item in bad.field_violations},
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 if found_retry else None,
        trailers=trailers,
    )
