"""`toolcrib destinations`: where calls may reach once an agent has read what strangers may have written."""

from __future__ import annotations

import click

from broker.cli.connection import connect, profile_option, read_all
from broker.cli.output import REFUSED, CommandFailed, Commands, list_output_option, show
from toolcrib.v1 import grants_pb2, grants_pb2_grpc

environment_option = click.option(
    "--environment", default="", metavar="E", help="Only what holds there. Default: every one."
)


@click.group(cls=Commands)
def destinations() -> None:
    """See which destinations are trusted.

    They stand in destinations.toml and in @destinations of grants, which `toolcrib grants apply` applies.
    """


@destinations.command("list")
@environment_option
@profile_option
@list_output_option
def list_destinations(environment: str, profile: str | None, form: str) -> None:
    """List what is trusted, and by what."""
    rows = _read("", environment, profile)
    show(rows, form, empty="no destination is trusted; list some in destinations.toml", whole=("value",))


@destinations.command("check")
@click.argument("value")
@environment_option
@profile_option
@list_output_option
def check(value: str, environment: str, profile: str | None, form: str) -> None:
    """Say whether VALUE is trusted, and by what. Exit code 1 when it is not.

    A grant's own destinations are trusted in the calls of that grant alone.
    """
    rows = _read(value, environment, profile)
    if not rows:
        raise CommandFailed(
            "nothing trusts it: values are compared byte for byte, and of a URL only the plain form counts "
            "(docs/labels.md)",
            REFUSED,
        )
    show(rows, form, empty="", whole=("value",))


def _read(value: str, environment: str, profile: str | None) -> list[dict[str, object]]:
    request = grants_pb2.ListDestinationsRequest(value=value, environment=environment, page_size=500)
    with connect(profile) as channel:
        found = read_all(grants_pb2_grpc.GrantsStub(channel).ListDestinations, request, "destinations")
    return [
        {
            "value": one.value,
            "match": one.match,
            "environments": ", ".join(one.environments) or "every one",
            "by": one.source,
            "note": one.note,
        }
        for one in found
    ]
