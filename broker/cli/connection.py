"""The command line's way to a broker: a profile, a channel, and the broker's errors in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from broker.cli.output import REFUSED, UNREACHABLE, USAGE, CommandFailed
from broker.client import read_profile
from broker.settings import SettingsInvalid, environment_variable

PROFILE_VARIABLE = "TOOLCRIB_PROFILE"
RPC_SECONDS = 30.0
HINTS = {
    "KEY_REQUIRED": "use --new-key, and --key with the same key to try again",
    "ROLE_REQUIRED": "name the profile of such a person with --profile",
    "IN_DOUBT": "`toolcrib calls show` tells more; ask again with the same --key only",
    "IN_PROGRESS": "ask again with the same --key",
}

profile_option = click.option(
    "--profile",
    metavar="DIR",
    help=f"Folder with profile.toml and certificates (or {PROFILE_VARIABLE}).",
)


def find_profile(named: str | None) -> Path:
    """Find the profile: named on the line, else in TOOLCRIB_PROFILE.

    Raises:
        CommandFailed: Neither names one.
    """
    chosen = named or environment_variable(PROFILE_VARIABLE)
    if not chosen:
        raise CommandFailed(
            f"name a profile with --profile DIR or {PROFILE_VARIABLE}; `toolcrib dev` writes some", USAGE
        )
    return Path(chosen)


@contextmanager
def connect(named: str | None) -> Iterator[grpc.Channel]:
    """Hold a channel; gRPC's errors leave as messages with exit codes.

    Raises:
        CommandFailed: The profile cannot be used, or the broker refused or cannot be reached.
    """
    try:
        profile = read_profile(find_profile(named))
        with profile.connect() as channel:
            yield channel
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    except grpc.RpcError as error:
        raise explain(error) from error


def ask(rpc: Callable[..., Any], request: Message, seconds: float | None = RPC_SECONDS) -> Any:
    """Call an rpc of the broker's own services, with a deadline."""
    return rpc(request, timeout=seconds)


def read_all(rpc: Callable[..., Any], request: Any, items: str, limit: int | None = None) -> list[Any]:
    """Read a list to its end, or its first `limit` items, page by page.

    Args:
        rpc: One of the list rpcs.
        request: Its request; its page_token is changed.
        items: Name of the field that holds a page's items.
        limit: The most items to read.
    """

    def pages() -> Iterator[Any]:
        while True:
            page = ask(rpc, request)
            yield from getattr(page, items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    return list(islice(pages(), limit))


def explain(error: grpc.RpcError) -> CommandFailed:
    """Turn a status into words: reason, message, every violation, when to retry, the call's id."""
    trailers = dict(error.trailing_metadata() or ())
    details = _read_details(trailers)
    call_id = trailers.get("toolcrib-call-id", "")
    if not details["reason"] and error.code() is grpc.StatusCode.UNAVAILABLE:
        return CommandFailed(_say_unreachable(error), UNREACHABLE, details={"code": "UNAVAILABLE"})
    reason = str(details["reason"]) or error.code().name
    lines = [f"{reason}: {error.details()}"]
    lines += [f"  {item['field']}: {item['description']}" for item in details["violations"]]
    if details["retry_after_seconds"] is not None:
        lines.append(f"  retry after {details['retry_after_seconds']:g} s")
    if reason in HINTS:
        lines.append(f"  {HINTS[reason]}")
    if call_id:
        lines.append(f"  call {call_id}")
    details |= {"message": error.details(), "code": error.code().name, "call_id": call_id}
    return CommandFailed("\n".join(lines), REFUSED, details=details)


def _read_details(trailers: dict[str, Any]) -> dict[str, Any]:
    """Read the rich status; one that cannot be read (another server's, say) is none."""
    found: dict[str, Any] = {"reason": "", "violations": [], "retry_after_seconds": None}
    try:
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    except DecodeError:
        return found
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            found["violations"] += [
                {"field": item.field, "description": item.description} for item in bad.field_violations
            ]
        elif detail.Unpack(retry):
            found["retry_after_seconds"] = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Unpack(info):
            found["reason"] = info.reason
    return found


def _say_unreachable(error: grpc.RpcError) -> str:
    text = " ".join(str(error.details()).split())
    return (
        f"the broker cannot be reached: {text[:300]}\n"
        "  Does it run at the profile's address, and is the profile's certificate of its CA and still valid?"
    )
