"""Maps `Refused` and `Failed` to gRPC statuses, in this one place.

Reasons travel in google.rpc.ErrorInfo (domain "toolcrib"), violations in BadRequest, waiting in RetryInfo,
all in the trailer grpc-status-details-bin.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from broker.errors import CallError
from toolcrib.v1 import reasons_pb2 as reasons

log = logging.getLogger(__name__)

DOMAIN = "toolcrib"
# gRPC's clients take 8 KiB of metadata; a success with more becomes an error at the client.
MAX_DETAIL_BYTES = 4608
MAX_MESSAGE_BYTES = 1024

_CODES = {
    grpc.StatusCode.UNAVAILABLE: (
        reasons.REASON_RECORD_UNAVAILABLE,
        reasons.REASON_DRAINING,
        reasons.REASON_STALE_EPOCH,
        reasons.REASON_CREDENTIALS_UNAVAILABLE,
        reasons.REASON_SANDBOX_UNAVAILABLE,
        reasons.REASON_TOKEN_KEYS_UNAVAILABLE,
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        reasons.REASON_TOO_MANY_CALLS,
        reasons.REASON_REQUEST_TOO_LARGE,
        reasons.REASON_BUDGET_EXHAUSTED,
    ),
    grpc.StatusCode.UNAUTHENTICATED: (
        reasons.REASON_IDENTITY_UNKNOWN,
        reasons.REASON_CERTIFICATE_EXPIRED,
        reasons.REASON_TOKEN_INVALID,
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        reasons.REASON_ROLE_REQUIRED,
        reasons.REASON_CALLER_BLOCKED,
        reasons.REASON_NOT_GRANTED,
        reasons.REASON_POLICY_FAILED,
        reasons.REASON_DESTINATION_UNTRUSTED,
        reasons.REASON_BRAKE_SET,
        reasons.REASON_SELF_REVIEW,
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        reasons.REASON_REQUEST_MALFORMED,
        reasons.REASON_REQUEST_INVALID,
        reasons.REASON_NEEDS_NEWER_VERSION,
        reasons.REASON_METADATA_INVALID,
        reasons.REASON_KEY_REQUIRED,
        reasons.REASON_ENVIRONMENT_UNKNOWN,
        reasons.REASON_BUNDLE_INVALID,
        reasons.REASON_GRANTS_INVALID,
        reasons.REASON_PAGE_TOKEN_INVALID,
    ),
    grpc.StatusCode.NOT_FOUND: (
        reasons.REASON_TOOL_UNKNOWN,
        reasons.REASON_CALL_UNKNOWN,
        reasons.REASON_BRAKE_UNKNOWN,
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (
        reasons.REASON_TOOL_NOT_USABLE,
        reasons.REASON_KEY_REUSED,
        reasons.REASON_KEY_EXPIRED,
        reasons.REASON_STATE_RESTORED,
        reasons.REASON_WORKFLOW_INVALID,
        reasons.REASON_APPROVAL_REQUIRED,
        reasons.REASON_BREAKING_CHANGE,
        reasons.REASON_TOOL_FAILED,
    ),
    grpc.StatusCode.ABORTED: (
        reasons.REASON_IN_PROGRESS,
        reasons.REASON_IN_DOUBT,
        reasons.REASON_CALL_STOPPED,
        reasons.REASON_PLAN_STALE,
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (reasons.REASON_DEADLINE_EXCEEDED,),
    grpc.StatusCode.OUT_OF_RANGE: (reasons.REASON_OUTPUT_TOO_LARGE,),
    grpc.StatusCode.ALREADY_EXISTS: (reasons.REASON_VERSION_EXISTS,),
    grpc.StatusCode.DATA_LOSS: (reasons.REASON_RESULT_INVALID, reasons.REASON_SECRET_IN_RESULT),
    grpc.StatusCode.INTERNAL: (reasons.REASON_TOOL_CRASHED, reasons.REASON_UNSPECIFIED),
}
# gRPC sends printable ASCII as it is, but for the percent sign.
_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
CODE_OF = {reason: code for code, members in _CODES.items() for reason in members}


def status_of(error: CallError) -> status_pb2.Status:
    """Build the rich status of an error."""
    code = CODE_OF[error.reason]
    facts = {name: cut_message(value) for name, value in error.details.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason_name, domain=DOMAIN, metadata=facts)
    details = [_pack(info)]
    if error.violations:
        details.append(_pack(_bad_request(error)))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=cut_message(error.message), details=details)


async def abort(context: Any, error: CallError, trailers: Mapping[str, str]) -> NoReturn:
    """End an rpc with an error; never returns."""
    status = status_of(error)
    metadata = [*trailers.items(), ("grpc-status-details-bin", status.SerializeToString())]
    await context.abort(CODE_OF[error.reason], status.message, tuple(metadata))
    raise AssertionError("abort raises")


def cut_message(message: str) -> str:
    """Cut a text to what fits into a trailer, where gRPC writes most bytes beyond ASCII as three (%XX)."""
    while (size := len(quote(message.encode("utf-8", "replace"), safe=_UNQUOTED))) > MAX_MESSAGE_BYTES:
        message = message[: max(len(message) * MAX_MESSAGE_BYTES // size - 1, 0)]
    return message


def _bad_request(error: CallError) -> error_details_pb2.BadRequest:
    """List the violations, as many as fit beside the rest; say how many do not."""
    listed = error_details_pb2.BadRequest()
    for number, violation in enumerate(error.violations):
        listed.field_violations.add(field=violation.field[:256], description=violation.description[:512])
        if listed.ByteSize() > MAX_DETAIL_BYTES:
            del listed.field_violations[-1]
            left = len(error.violations) - number
            listed.field_violations.add(field="…", description=f"and {left} more violations")
            break
    return listed


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
