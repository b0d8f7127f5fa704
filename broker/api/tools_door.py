"""The tools' own services, served natively: one raw-bytes handler for every path that is not the broker's.

So an agent calls a tool with the client that protoc generates for the tool's service, in any language.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import grpc

from broker.api.door import AUTHORIZATION, deadline_of, peer_of
from broker.api.status import abort
from broker.errors import CallError, Failed
from broker.labels import label_failure
from broker.metrics import Metrics
from broker.model import Answer, Role, StageTime
from broker.path import Path
from broker.request import Request
from broker.trail import Trail
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)

MAX_TRAILER_BYTES = 2048
# Of Prometheus' labels: finding one's counter costs more than counting.
MAX_REMEMBERED = 4096


class ToolsDoor(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every gRPC path that no service of the broker has."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._count = lru_cache(MAX_REMEMBERED)(metrics.calls.labels)
        self._time = lru_cache(MAX_REMEMBERED)(metrics.call_seconds.labels)
        self._time_stage = lru_cache(MAX_REMEMBERED)(metrics.stage_seconds.labels)

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one path; tenant and tool are resolved inside."""
        method = handler_call_details.method.lstrip("/")
        metadata = read(handler_call_details.invocation_metadata)

        async def serve(raw_input: bytes, context: Any) -> bytes:
            request = Request(peer_of(context), method, raw_input, deadline_of(context), metadata=metadata)
            answer = await self.answer(request, context)
            context.set_trailing_metadata(tuple(trailers(answer).items()))
            return answer.result

        return grpc.unary_unary_rpc_method_handler(serve)

    async def answer(self, request: Request, context: Any) -> Answer:
        """Walk the path and turn its errors into statuses."""
        began = time.monotonic()
        trail = self._path.begin(request)
        outcome = "CANCELLED"
        try:
            answer = await self._path.answer(request, trail)
            outcome = "SUCCEEDED"
            return answer
        except CallError as error:
            outcome = error.reason_name
            await abort(context, error, error_trailers(trail, error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            outcome = "INTERNAL"
            log.exception("call failed", extra={"call_id": trail.call_id, "method": request.method})
            failure = Failed(Reason.REASON_UNSPECIFIED, f"the broker failed; see its log for {trail.call_id}")
            await abort(context, failure, error_trailers(trail, failure))
        finally:
            # Behind the answer: it has been sent when the loop comes to this.
            seconds, stages = time.monotonic() - began, trail.stages
            asyncio.get_running_loop().call_soon(self._note, trail, outcome, seconds, stages)

    def _note(self, trail: Trail, outcome: str, seconds: float, stages: Iterable[StageTime]) -> None:
        tool = trail.method if trail.call else "unknown"
        self._count(tool, outcome).inc()
        self._time(tool).observe(seconds)
        for stage, _, duration_micros in stages:
            self._time_stage(stage).observe(duration_micros / 1e6)
        caller = trail.caller
        log.info(
            "call",
            extra={
                "call_id": trail.call_id,
                "tenant": caller.tenant if caller else "",
                "agent": caller.name if caller and caller.role is Role.AGENT else "",
                "method": tool,
                "outcome": outcome,
                "millis": round(seconds * 1000, 1),
            },
        )


def read(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Take the text values of metadata; of a name that comes twice, neither value is believed.

    A token stays behind: `peer_of` has it, and nothing that comes later may see it.
    """
    values: dict[str, str] = {}
    for name, value in metadata or ():
        if isinstance(value, str) and name != AUTHORIZATION:
            values[name] = f"{values[name]},{value}" if name in values else value
    return values


def trailers(answer: Answer) -> dict[str, str]:
    """Say what is about the call and not about the tool; under 2 KiB in all."""
    values = {
        "toolcrib-call-id": answer.call_id,
        "toolcrib-replayed": "true" if answer.replayed else "false",
        "toolcrib-labels": ",".join(answer.labels)[: MAX_TRAILER_BYTES - 256],
    }
    if answer.first_call_time is not None:
        values["toolcrib-first-call-time"] = answer.first_call_time.isoformat()
    if answer.artefacts:
        values["toolcrib-artefacts"] = str(len(answer.artefacts))
    return values


def error_trailers(trail: Trail, error: CallError) -> dict[str, str]:
    """Name the call of an error, and whether the error is an earlier call's."""
    replayed = isinstance(error, Failed) and "replayed" in error.details
    values = {
        "toolcrib-call-id": trail.earlier_call_id or trail.call_id,
        "toolcrib-replayed": "true" if replayed else "false",
    }
    call = trail.call if trail.ran or replayed else None
    labels = label_failure(error, call.contract.method, call.version.version) if call else ()
    return values | ({"toolcrib-labels": ",".join(labels)} if labels else {})
