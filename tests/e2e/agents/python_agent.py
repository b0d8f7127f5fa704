"""A Python agent of the refund desk: a client certificate, generated code, and no secret.

It imports grpcio, protobuf and what was generated from the exported client view; nothing of Toolcrib's.
Each line of stdin is one JSON object, each line of stdout one JSON answer:

    {"call": "LookupOrder", "request": {"orderId": "A-1042"}}      make a call of shop.v1.Orders
        "metadata": {"toolcrib-idempotency-key": "k-1"}            more that a call can carry
        "deadline_seconds": 10, "cancel_after_seconds": 0.5        the second hangs up
        "raw_request_hex": "ffff"                                  these bytes instead of a request
        "wire": true                                               answer the plaintext bytes as well
    {"hold": "text"}, {"open": "/path"}                            keep something in memory, a file open
    {"about": true}                                                the process, and modules it has imported

`--scenario` takes a JSON list of such objects instead of stdin. The program ends with its input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

SERVICE = "shop.v1.Orders"
Json = dict[str, Any]


class RecordingChannel:
    """Hands the generated stub a channel, and keeps the last call's bytes as they crossed the wire."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.request = b""
        self.answer = b""

    def unary_unary(
        self, method: str, request_serializer: Any, response_deserializer: Any, **options: Any
    ) -> Any:
        def serialize(request: Any) -> bytes:
            self.request = request if isinstance(request, bytes) else request_serializer(request)
            return self.request

        def deserialize(answer: bytes) -> Any:
            self.answer = answer
            return response_deserializer(answer)

        return self._channel.unary_unary(method, serialize, deserialize, **options)


class Agent:
    """One channel and the generated stub on it."""

    def __init__(self, channel: grpc.Channel) -> None:
        from shop.v1 import orders_pb2, orders_pb2_grpc

        self._messages = orders_pb2
        self._channel = RecordingChannel(channel)
        self._stub = orders_pb2_grpc.OrdersStub(self._channel)
        self._kept: list[object] = []

    def answer(self, command: Json) -> Json:
        """Do what one command says."""
        if "call" in command:
            return self._call(command)
        if "hold" in command:
            self._kept.append(command["hold"])
            return {"held": True}
        if "open" in command:
            self._kept.append(os.open(command["open"], os.O_RDONLY))
            return {"opened": command["open"]}
        if "about" in command:
            return {"pid": os.getpid(), "modules": sorted({name.split(".")[0] for name in sys.modules})}
        return {"error": f"no such command: {sorted(command)}"}

    def _call(self, command: Json) -> Json:
        name = command["call"]
        self._channel.request = self._channel.answer = b""
        outcome: Json = {"step": command.get("step", name), "method": f"{SERVICE}/{name}"}
        started = time.monotonic()
        call = getattr(self._stub, name).future(
            self._request(command),
            timeout=command.get("deadline_seconds", 15),
            metadata=tuple(command.get("metadata", {}).items()),
        )
        if "cancel_after_seconds" in command:
            time.sleep(command["cancel_after_seconds"])
            call.cancel()
        outcome |= _describe(call)
        outcome["millis"] = round((time.monotonic() - started) * 1000, 1)
        if command.get("wire"):
            outcome["wire"] = self._wire(call)
        return outcome

    def _request(self, command: Json) -> Any:
        if "raw_request_hex" in command:
            return bytes.fromhex(command["raw_request_hex"])
        message = getattr(self._messages, f"{command['call']}Request")()
        return json_format.ParseDict(command.get("request", {}), message)

    def _wire(self, call: Any) -> Json:
        trailers = b"\n".join(_bytes(key) + b": " + _bytes(value) for key, value in _metadata(call))
        return {
            "request_hex": self._channel.request.hex(),
            "answer_hex": self._channel.answer.hex(),
            "trailers_hex": trailers.hex(),
        }


def _describe(call: Any) -> Json:
    """Say what became of a call: status, result, reason, violations by field, trailers."""
    try:
        code = call.code()
    except grpc.FutureCancelledError:
        code = grpc.StatusCode.CANCELLED
    outcome: Json = {"code": code.name, "trailers": _readable_trailers(call)}
    if code is grpc.StatusCode.OK:
        outcome["result"] = json_format.MessageToDict(call.result())
        return outcome
    outcome["message"] = call.details() or ""
    if code is not grpc.StatusCode.CANCELLED:
        outcome |= _details(call)
    return outcome


def _details(call: Any) -> Json:
    """Read the google.rpc details: reason and domain, violations, when to ask again."""
    status = rpc_status.from_call(call)
    if status is None:
        return {"reason": ""}
    readers: Sequence[tuple[Any, Callable[[Any], Json]]] = (
        (error_details_pb2.ErrorInfo, _read_info),
        (error_details_pb2.BadRequest, _read_violations),
        (error_details_pb2.RetryInfo, lambda retry: {"retry_after_seconds": _seconds(retry.retry_delay)}),
    )
    found: Json = {"reason": ""}
    for detail in status.details:
        for kind, read in readers:
            message = kind()
            if detail.Unpack(message):
                found |= read(message)
    return found


def _read_info(info: Any) -> Json:
    return {"reason": info.reason, "domain": info.domain, "reason_metadata": dict(info.metadata)}


def _read_violations(request: Any) -> Json:
    violations = request.field_violations
    return {"violations": [{"field": v.field, "description": v.description} for v in violations]}


def _seconds(duration: Any) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9


def _metadata(call: Any) -> Sequence[tuple[str, str | bytes]]:
    return call.trailing_metadata() or ()


def _readable_trailers(call: Any) -> dict[str, str]:
    return {key: value for key, value in _metadata(call) if isinstance(value, str)}


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def open_channel(options: argparse.Namespace) -> grpc.Channel:
    """Open the mTLS channel; without a certificate the broker has nobody to talk to."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=options.ca.read_bytes(),
        private_key=options.key.read_bytes() if options.key else None,
        certificate_chain=options.cert.read_bytes() if options.cert else None,
    )
    return grpc.secure_channel(options.address, credentials)


def read_commands(options: argparse.Namespace) -> Iterator[Json]:
    """Give the scenario's commands, or stdin's, one JSON object a line."""
    if options.scenario:
        yield from json.loads(options.scenario)
        return
    for line in sys.stdin:
        if line.strip():
            yield json.loads(line)


def main() -> int:
    """Answer each command with one line."""
    parser = argparse.ArgumentParser(description="An agent of the refund desk")
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--generated", type=Path, required=True, help="folder with the generated code")
    parser.add_argument("--scenario", default="", help="a JSON list of commands, instead of stdin")
    options = parser.parse_args()
    sys.path.insert(0, str(options.generated))
    with open_channel(options) as channel:
        agent = Agent(channel)
        for command in read_commands(options):
            print(json.dumps(agent.answer(command)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
