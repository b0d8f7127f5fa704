"""The command line's way to a broker: a profile, a channel, and the broker's errors in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf.message import Message

from broker.cli.output import REFUSED, UNREACHABLE, USAGE, CommandFailed
from broker.client import read_profile
from broker.settings import SettingsInvalid, environment_variable
from toolcrib.client import Unreachable
from toolcrib.client.trailers import read_error

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
    said = read_error(error)
    is_bare = isinstance(said, Unreachable)
    if is_bare and said.code == "UNAVAILABLE":
        return CommandFailed(_say_unreachable(error), UNREACHABLE, details={"code": "UNAVAILABLE"})
    lines = [f"{said.reason}: {said.message}"]
    lines += [f"  {item.field}: {item.description}" for item in said.violations]
    if said.retry_after_seconds is not None:
        lines.append(f"  retry after {said.retry_after_seconds:g} s")
    if said.reason in HINTS:
        lines.append(f"  {HINTS[said.reason]}")
    if said.call_id:
        lines.append(f"  call {said.call_id}")
    details = {
        "reason": "" if is_bare else said.reason,
        "violations": [asdict(item) for item in said.violations],
        "retry_after_seconds": said.retry_after_seconds,
        "message": said.message,
        "code": said.code,
        "call_id": said.call_id,
    }
    return CommandFailed("\n".join(lines), REFUSED, details=details)


def _say_unreachable(error: grpc.RpcError) -> str:
    text = " ".join(str(error.details()).split())
    return (
        f"the broker cannot be reached: {text[:300]}\n"
        "  Does it run at the profile's address, and is the profile's certificate of its CA and still valid?"
    )
