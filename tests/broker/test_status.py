"""Each reason has one gRPC status; details fit into the trailers that clients take."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2

from broker.api.status import CODE_OF, status_of
from broker.errors import Failed, Refused
from toolcrib.v1 import reasons_pb2
from tools.errors import Violation


@pytest.mark.parametrize("reason", reasons_pb2.Reason.values())
def test_maps_every_reason(reason):
    assert reason in CODE_OF


def test_tells_reason_and_details():
    status = status_of(Refused(reasons_pb2.REASON_KEY_REUSED, "used", details={"earlier_call_id": "c1"}))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, info.metadata["earlier_call_id"]) == ("KEY_REUSED", "toolcrib", "c1")


def test_tells_when_to_retry():
    status = status_of(Failed(reasons_pb2.REASON_CREDENTIALS_UNAVAILABLE, "no", retry_after_seconds=1.5))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_says_how_many_violations_did_not_fit():
    violations = [Violation(f"field{number}", "x" * 400) for number in range(100)]
    status = status_of(Refused(reasons_pb2.REASON_REQUEST_INVALID, "bad", violations=violations))
    listed = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(listed)
    assert status.ByteSize() < 8 * 1024
    assert "more violations" in listed.field_violations[-1].description


@pytest.mark.parametrize("letter", ["x", "é", "界", "\n", "%", "\U0001f600"])
def test_fits_into_the_trailers_whatever_the_message_is_made_of(letter: str):
    violations = [Violation(letter * 300, letter * 600) for _ in range(100)]
    error = Refused(
        reasons_pb2.REASON_TOOL_FAILED, letter * 5000, violations=violations, details={"code": letter * 5000}
    )
    status = status_of(error)
    as_sent = len(quote(status.message)) + status.ByteSize()
    assert status.message.startswith(letter)
    assert as_sent < 8 * 1024 - 256
