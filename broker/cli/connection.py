"""The command line's way to a broker: a profile, a channel, and the broker's errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import grpc
from google.rpc import error_details_pb2, status_pb2

from broker.cli.output import REFUSED, UNREACHABLE, USAGE, CommandFailed
from broker.client import read_profile
from broker.settings import SettingsInvalid, environment_variable

PROFILE_VARIABLE = "TOOLCRIB_PROFILE"


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


def explain(error: grpc.RpcError) -> CommandFailed:
    """Turn a status into words: reason, message, every violation, when to retry, the call's id."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = error_details_pb2.ErrorInfo()
    lines = []
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            lines += [f"  {item.field}: {item.description}" for item in bad.field_violations]
        elif detail.Unpack(retry):
            lines.append(f"  retry after {retry.retry_delay.ToMilliseconds() / 1000:g} s")
        else:
            detail.Unpack(info)
    if "toolcrib-call-id" in trailers:
        lines.append(f"  call {trailers['toolcrib-call-id']}")
    if not info.reason and error.code() is grpc.StatusCode.UNAVAILABLE:
        return CommandFailed(f"the broker cannot be reached: {error.details()}", UNREACHABLE)
    head = f"{info.reason or error.code().name}: {error.details()}"
    return CommandFailed("\n".join([head, *lines]), REFUSED)


profile_option = click.option(
    "--profile",
    metavar="DIR",
    help=f"Folder with profile.toml and certificates (or {PROFILE_VARIABLE}).",
)
output_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for programs.",
)
