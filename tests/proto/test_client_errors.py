"""How errors are read, whoever wrote them."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from broker.api.status import abort
from broker.errors import Refused as BrokerRefused
from tests.proto.scripted_broker import WRITE, Face, ScriptedBroker, end
from toolcrib.client import Failed, Refused, ToolcribError, Unreachable, Violation
from toolcrib.client.trailers import MAX_RETRY_SECONDS, read_details
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation as BrokerViolation

DETAILS = "grpc-status-details-bin"


def packed(*details: Any) -> bytes:
    status = status_pb2.Status(code=3, message="no")
    for detail in details:
        if isinstance(detail, any_pb2.Any):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return bytes(status.SerializeToString())


async def test_reads_what_the_broker_writes(client: Face, broker: ScriptedBroker):
    async def refuse(context: Any) -> None:
        error = BrokerRefused(
            Reason.REASON_REQUEST_INVALID,
            "two rules are broken: \u2603",
            violations=[BrokerViolation("amount.currency", "must be EUR"), BrokerViolation("order_id", "no")],
            details={"field": "amount"},
        )
        await abort(context, error, {"toolcrib-call-id": "c42"})

    broker.steps = [refuse]
    with pytest.raises(Refused) as caught:
        await client.invoke(WRITE, {})
    error = caught.value
    assert (error.reason, error.message, error.code) == (
        "REQUEST_INVALID",
        "two rules are broken: \u2603",
        "INVALID_ARGUMENT",
    )
    assert error.violations == (Violation("amount.currency", "must be EUR"), Violation("order_id", "no"))
    assert (error.details, error.call_id, error.retry_after_seconds) == ({"field": "amount"}, "c42", None)
    assert "amount.currency: must be EUR" in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xff\xff garbage",
        b"\x1a\x05\x0a\x03abc",
        packed(any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")),
        packed(any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a\xff")),
        packed(error_details_pb2.ErrorInfo(reason="KEY_REUSED", domain="elsewhere.example")),
        packed(error_details_pb2.ErrorInfo(reason="key\nreused", domain="toolcrib")),
        packed(error_details_pb2.ErrorInfo(reason="A" * 65, domain="toolcrib")),
    ],
)
async def test_takes_a_trailer_that_cannot_be_read_for_none(client: Face, broker: ScriptedBroker, raw: bytes):
    broker.steps = [end(grpc.StatusCode.INVALID_ARGUMENT, (DETAILS, raw))]
    with pytest.raises(Unreachable) as error:
        await client.invoke(WRITE, {})
    assert (error.value.reason, error.value.message) == ("INVALID_ARGUMENT", "bare")


@pytest.mark.parametrize("value", ["c1 c2", "x" * 65, "c1;drop", ""])
async def test_leaves_out_a_call_id_that_is_none(client: Face, broker: ScriptedBroker, value: str):
    broker.steps = [end(grpc.StatusCode.ABORTED, ("toolcrib-call-id", value))]
    with pytest.raises(ToolcribError) as error:
        await client.invoke(WRITE, {})
    assert error.value.call_id == ""


async def test_believes_the_first_of_two_trailers_of_one_name(client: Face, broker: ScriptedBroker):
    broker.steps = [end(grpc.StatusCode.ABORTED, ("toolcrib-call-id", "c1"), ("toolcrib-call-id", "c2"))]
    with pytest.raises(ToolcribError) as error:
        await client.invoke(WRITE, {})
    assert error.value.call_id == "c1"


async def test_takes_a_reason_that_it_does_not_know_for_a_failure(client: Face, broker: ScriptedBroker):
    raw = packed(error_details_pb2.ErrorInfo(reason="MOON_FULL", domain="toolcrib"))
    broker.steps = [end(grpc.StatusCode.UNAVAILABLE, (DETAILS, raw))]
    with pytest.raises(Failed) as error:
        await client.invoke(WRITE, {})
    assert (error.value.reason, error.value.may_have_happened) == ("MOON_FULL", True)
    assert len(broker.seen) == 1


@pytest.mark.parametrize(
    ("seconds", "nanos", "read"),
    [(-5, 0, 0.0), (2, 500_000_000, 2.5), (2**62, 0, MAX_RETRY_SECONDS), (0, -1, 0.0)],
)
def test_bounds_what_it_is_told_to_wait(seconds: int, nanos: int, read: float):
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    assert read_details(packed(info)).retry_after_seconds == read


def test_never_raises_whatever_bytes_come():
    chance = random.Random(7)
    good = packed(
        error_details_pb2.ErrorInfo(reason="DRAINING", domain="toolcrib", metadata={"a": "b"}),
        error_details_pb2.RetryInfo(),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="f", description="d")]
        ),
    )
    assert read_details(good).reason == "DRAINING"
    for _ in range(20_000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        read_details(bytes(bad[: chance.randint(0, len(bad))]))
