"""`toolcrib leases`: what is alive right now, and the brake that ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import (
    UNHEALTHY,
    USAGE,
    CommandFailed,
    list_output_option,
    output_option,
    show,
    show_one,
    to_printable,
)
from broker.cli.times import write_second, write_time
from toolcrib.v1 import operations_pb2, operations_pb2_grpc

MAY_BE_ALIVE = "NOT CONFIRMED"
_STATES = {
    operations_pb2.Lease.STATE_LIVE: "live",
    operations_pb2.Lease.STATE_ENDING: "ending",
    operations_pb2.Lease.STATE_NOT_CONFIRMED: MAY_BE_ALIVE,
}
# Longer than the broker waits for the stopped calls and for Vault.
BRAKE_SECONDS = 60.0
HEADINGS = (
    "state",
    "call_id",
    "tenant",
    "environment",
    "agent",
    "subject",
    "tool",
    "grant_id",
    "credential",
    "engine",
    "role",
    "username",
    "lease_id",
    "accessor",
    "minted",
    "expires",
    "tries",
    "last_error",
)

reason_option = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; for the audit, and for those who are refused."
)


@click.group()
def leases() -> None:
    """See which credentials are alive right now, and pull the brake. For operators."""


@leases.command("list")
@click.option("--agent", default="", metavar="NAME", help="Only those of this agent: what could it do now?")
@click.option("--tool", default="", metavar="TOOL", help="Only those of this tool or service.")
@click.option("--all-tenants", is_flag=True, help="Of every tenant; for platform operators.")
@profile_option
@list_output_option
def list_leases(agent: str, tool: str, all_tenants: bool, profile: str | None, form: str) -> None:
    """List the credentials that are alive, oldest first.

    \b
    live           its call runs
    ending         its call has ended, its end is on the way
    NOT CONFIRMED  its end was tried in vain: it may be alive
    """  # noqa: D301 - click reads the control character
    request = operations_pb2.ListLeasesRequest(agent=agent, tool=tool, all_tenants=all_tenants)
    with connect(profile) as channel:
        found = ask(operations_pb2_grpc.OperationsStub(channel).ListLeases, request).leases
    if form != "table":
        show([_describe(lease) for lease in found], form, empty="", headings=HEADINGS)
        return
    if found:
        now = datetime.now(UTC)
        rows = [_summarize(lease, now, all_tenants) for lease in found]
        show(rows, form, empty="", whole=("state", "since", "call"))
    for line in _explain(found):
        click.echo(to_printable(line))


@leases.command()
@click.option("--agent", metavar="NAME", help="One agent, whatever certificate it shows.")
@click.option("--tool", metavar="TOOL", help="One tool, or all of a service (package.Service).")
@click.option(
    "--tenant",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Everything of your tenant, or of NAME; beside --agent or --tool: whose. "
    "Another tenant than yours is for platform operators.",
)
@click.option("--all", "everything", is_flag=True, help="Everything; for platform operators.")
@reason_option
@profile_option
@output_option
def revoke(  # noqa: PLR0913 - one parameter an option
    *,
    agent: str | None,
    tool: str | None,
    tenant: str | None,
    everything: bool,
    reason: str,
    profile: str | None,
    form: str,
) -> None:
    """Pull the brake: stop what runs, end its credentials, refuse new calls until `leases lift`.

    Exit code 3 when a credential's end is not confirmed: the brake holds, and the broker goes on trying.
    """
    named = [name for name, value in (("--agent", agent), ("--tool", tool)) if value is not None]
    named += ["--all"] if everything else []
    if len(named) > 1 or (everything and tenant is not None) or not (named or tenant is not None):
        raise CommandFailed("say what to stop: one of --agent NAME, --tool TOOL, --tenant, --all", USAGE)
    request = operations_pb2.SetBrakeRequest(reason=reason, tenant=tenant or "")
    if agent is not None:
        request.kind, request.value = operations_pb2.BRAKE_KIND_AGENT, agent
    elif tool is not None:
        request.kind, request.value = operations_pb2.BRAKE_KIND_TOOL, tool
    else:
        kind = operations_pb2.BRAKE_KIND_ALL if everything else operations_pb2.BRAKE_KIND_TENANT
        request.kind = kind
    set_brake(request, profile, form)


@leases.command()
@click.argument("brake_id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why it may go on; for the audit.")
@profile_option
@output_option
def lift(brake_id: str, reason: str, profile: str | None, form: str) -> None:
    """Lift the brake ID: what it held back is let in again."""
    lift_brake(brake_id, reason, profile, form)


@leases.command()
@profile_option
@list_output_option
def brakes(profile: str | None, form: str) -> None:
    """List the brakes in force, oldest first."""
    show_brakes(read_brakes(profile), form, empty="no brake is set")


def set_brake(request: operations_pb2.SetBrakeRequest, profile: str | None, form: str) -> None:
    """Set a brake and say what it stopped.

    Raises:
        CommandFailed: The broker refused; or a credential may be alive.
    """
    with connect(profile) as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        answer = ask(stub.SetBrake, request, BRAKE_SECONDS)
    said = {
        **_name_brake(answer.brake),
        "stopped_calls": list(answer.stopped_call_ids),
        "credentials_ended": answer.leases_ended,
        "credentials_not_confirmed": answer.leases_owed,
    }
    if form != "json":
        said["stopped_calls"] = ", ".join(answer.stopped_call_ids) or "none was running"
    show_one(said, form)
    if answer.leases_owed:
        raise CommandFailed(
            f"the brake holds, but {_count(answer.leases_owed, 'credential')} may be alive; the broker goes "
            "on ending them: watch `toolcrib leases list`",
            UNHEALTHY,
        )


def lift_brake(brake_id: str, reason: str, profile: str | None, form: str) -> None:
    """Lift a brake and say which."""
    request = operations_pb2.LiftBrakeRequest(id=brake_id, reason=reason)
    with connect(profile) as channel:
        answer = ask(operations_pb2_grpc.OperationsStub(channel).LiftBrake, request)
    show_one({"lifted": answer.brake.id, **_name_brake(answer.brake)}, form)


def read_brakes(profile: str | None) -> list[operations_pb2.Brake]:
    """Read the brakes in force that this operator sees."""
    with connect(profile) as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        return list(ask(stub.ListBrakes, operations_pb2.ListBrakesRequest()).brakes)


def show_brakes(found: list[operations_pb2.Brake], form: str, *, empty: str) -> None:
    """Print brakes, as a table, JSON or CSV."""
    rows: list[dict[str, object]] = [
        {
            "id": brake.id,
            "holds": _holds(brake),
            "tenant": brake.tenant,
            "reason": brake.reason,
            "set": write_second(brake, "set")[5:16],
            "by": brake.set_by.rpartition("/")[2],
        }
        if form == "table"
        else _describe_brake(brake)
        for brake in found
    ]
    headings = ("id", "kind", "tenant", "value", "reason", "set", "set_by")
    show(rows, form, empty=empty, whole=("id", "set"), headings=headings)


def _name_brake(brake: operations_pb2.Brake) -> dict[str, Any]:
    return {"brake": brake.id, "holds": _holds(brake), "tenant": brake.tenant, "reason": brake.reason}


def _describe_brake(brake: operations_pb2.Brake) -> dict[str, object]:
    return {
        "id": brake.id,
        "kind": _kind(brake),
        "tenant": brake.tenant,
        "value": brake.value,
        "reason": brake.reason,
        "set": write_time(brake, "set"),
        "set_by": brake.set_by,
    }


def _kind(brake: operations_pb2.Brake) -> str:
    return operations_pb2.BrakeKind.Name(brake.kind).removeprefix("BRAKE_KIND_")


def _holds(brake: operations_pb2.Brake) -> str:
    """Say what a brake holds back, for example "agent refund-desk"."""
    return f"{_kind(brake).lower()} {brake.value}".strip()


def _describe(lease: operations_pb2.Lease) -> dict[str, object]:
    """Say all of a lease, with the names of the public API."""
    said = {name: getattr(lease, name) for name in HEADINGS}
    times = {name: write_time(lease, name) for name in ("minted", "expires")}
    return {**said, **times, "state": operations_pb2.Lease.State.Name(lease.state).removeprefix("STATE_")}


def _summarize(lease: operations_pb2.Lease, now: datetime, with_tenant: bool) -> dict[str, object]:
    whose = f"{lease.tenant}/{lease.agent}" if with_tenant else lease.agent
    return {
        "state": _STATES.get(lease.state, "?"),
        "since": _age(now, lease.minted.ToDatetime(UTC)),
        "agent": whose,
        "tool": lease.tool.rpartition("/")[2],
        "role": f"{lease.engine}/{lease.role}",
        "call": lease.call_id,
    }


def _age(now: datetime, then: datetime) -> str:
    seconds = max(int((now - then).total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _explain(found: Any) -> Iterator[str]:
    """Say more of what may be alive, and count: the last line is there in every case."""
    unsure = [lease for lease in found if lease.state == operations_pb2.Lease.STATE_NOT_CONFIRMED]
    for lease in unsure:
        yield f"{MAY_BE_ALIVE}: {lease.username or lease.credential}, {lease.lease_id}"
        yield f"  {_count(lease.tries, 'try', 'tries')}, the last: {lease.last_error}"
    counts = Counter(_STATES.get(lease.state, "?") for lease in found)
    parts = ", ".join(f"{counts[state]} {state}" for state in _STATES.values() if counts[state])
    yield f"{_count(len(found), 'credential')}" + (f": {parts}" if parts else ": nothing is alive")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
