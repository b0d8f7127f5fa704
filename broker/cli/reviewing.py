"""`toolcrib grants explain` and `unused`: what a security team reviews."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import click

from broker.cli.calling import read_json
from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import USAGE, CommandFailed, list_output_option, show, to_json, to_printable
from broker.cli.times import write_second, write_time
from toolcrib.v1 import grants_pb2, grants_pb2_grpc

COLOURS = {"allow": "green", "ask": "yellow", "forbid": "red"}
UNUSED = ("grant", "file", "applied", "last_used", "uses")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@click.command("explain")
@click.option("--agent", default="", metavar="NAME", help="What may this agent do? Its name in the tenant.")
@click.option("--tool", default="", metavar="TOOL", help="Who may call it? E.g. shop.v1.Orders/IssueRefund.")
@click.option(
    "--arguments", metavar="JSON|@FILE|-", help="Would this one call be allowed? With --agent and --tool."
)
@click.option("--environment", default="", metavar="E", help="Of the call. Default: the broker's first one.")
@click.option("--subject", default="", metavar="S", help="On whose behalf the agent makes the call.")
@profile_option
@list_output_option
def explain(  # noqa: PLR0913 - one parameter an option
    *,
    agent: str,
    tool: str,
    arguments: str | None,
    environment: str,
    subject: str,
    profile: str | None,
    form: str,
) -> None:
    """Say who may do what, and through which grant. Runs nothing.

    With --agent: what it may do, with which Vault roles, and when it last did. With --tool: who may call it.
    With both and --arguments: would this one call be allowed now?
    """
    if arguments is not None:
        if not (agent and tool):
            raise CommandFailed("--arguments are those of one call: name its --agent and --tool", USAGE)
        request = grants_pb2.ExplainGrantsRequest(
            agent=agent,
            tool=tool,
            arguments_json=read_json(arguments),
            environment=environment,
            subject=subject,
        )
        _explain_call(request, profile, form)
        return
    if bool(agent) == bool(tool):
        text = "name --agent or --tool; to ask about one call name both and give its --arguments"
        raise CommandFailed(text, USAGE)
    if environment or subject:
        raise CommandFailed("--environment and --subject belong to one call: give its --arguments", USAGE)
    _show_access(grants_pb2.ListAccessRequest(agent=agent, tool=tool), profile, form)


@click.command("unused")
@click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long nobody used them."
)
@profile_option
@list_output_option
def unused(days: int, profile: str | None, form: str) -> None:
    """List grants that allowed no call for some days, or never.

    Younger ones are not listed: who was granted something yesterday could not use it for a month. A grant is
    as old as its last change; an expired one is listed.
    """
    with connect(profile) as channel:
        stub = grants_pb2_grpc.GrantsStub(channel)
        found = ask(stub.ListUnusedGrants, grants_pb2.ListUnusedGrantsRequest(days=days)).grants
    rows = [
        {
            "grant": one.grant_id,
            "file": one.file,
            "applied": _moment(one, "applied", form),
            "last_used": _moment(one, "last_used", form),
            "uses": one.uses,
        }
        for one in found
    ]
    show(rows, form, empty=f"every grant was used in the last {days} d", whole=("grant",), headings=UNUSED)
    if form == "table":
        click.echo(f"grants added or changed in the last {days} d are not listed", err=True)


def _moment(message: Any, name: str, form: str) -> str:
    if form != "table":
        return write_time(message, name)
    return write_second(message, name)[:10] or "never"


# --- one call --------------------------------------------------------------------------------------------
def _explain_call(request: grants_pb2.ExplainGrantsRequest, profile: str | None, form: str) -> None:
    with connect(profile) as channel:
        found = ask(grants_pb2_grpc.GrantsStub(channel).ExplainGrants, request)
    said = {
        "decision": found.decision,
        "grant_ids": list(found.grant_ids),
        "errors": list(found.errors),
    }
    if form == "json":
        click.echo(to_json(said))
    elif form == "csv":
        show([said], form, empty="")
    else:
        by = f", by {', '.join(found.grant_ids)}" if found.grant_ids else ""
        click.echo(f"{found.decision}{by}")
        for error in found.errors:
            click.echo(f"  {to_printable(error)}")


# --- who may do what -------------------------------------------------------------------------------------
def _show_access(request: grants_pb2.ListAccessRequest, profile: str | None, form: str) -> None:
    with connect(profile) as channel:
        found = ask(grants_pb2_grpc.GrantsStub(channel).ListAccess, request).access
    if form == "json":
        click.echo(to_json([_describe(one) for one in found]))
    elif form == "csv":
        rows = [_describe(one) | {"credentials": [*map(_name_role, one.credentials)]} for one in found]
        show(rows, form, empty="", headings=[*_describe(grants_pb2.GrantedAccess())])
    else:
        _print_access(request, found)


def _print_access(request: grants_pb2.ListAccessRequest, found: Sequence[Any]) -> None:
    nobody = f'no grant names "{to_printable(request.agent or request.tool)}": every call is refused'
    show(
        [_summarize(one, by_agent=bool(request.agent)) for one in found],
        "table",
        empty=nobody,
        whole=("decision", "used"),
    )
    for grant_id, rows in groupby(sorted(found, key=lambda one: one.grant_id), lambda one: one.grant_id):
        click.echo()
        for line in _detail(grant_id, list(rows)):
            click.echo(to_printable(line))


def _summarize(access: Any, *, by_agent: bool) -> dict[str, object]:
    subject = {"tool": access.tool} if by_agent else {"agent": access.agent}
    return {
        "decision": access.decision,
        **subject,
        "grant": access.grant_id,
        "vault_role": ", ".join(use.role for use in access.credentials) or "-",
        "used": _write_age(access),
    }


def _detail(grant_id: str, rows: Sequence[Any]) -> Iterator[str]:
    """Say all of one grant: what holds for all its rows once, then each row."""
    first = rows[0]
    where = f"in {', '.join(first.environments)}" if first.environments else "in every environment"
    until = f", until {write_second(first, 'expires')}" if first.HasField("expires") else ""
    yield f"{grant_id} ({first.file}): {first.decision} {where}{until}"
    for one in rows:
        yield f"  {one.agent} → {one.tool}{f' ({one.effect})' if one.effect else ''}"
        if one.credentials:
            yield f"    credentials: {', '.join(_name_role(use) for use in one.credentials)}"
        if one.targets:
            yield f"    reaches: {', '.join(one.targets)}"
        yield from (f"    asks only: {rule}" for rule in one.egress)
        if one.uses:
            calls = f"{one.uses} call{'' if one.uses == 1 else 's'}"
            yield f"    used: {calls}, last {write_second(one, 'last_used')}"
    if first.limits:
        yield f"  at most {'; '.join(first.limits)}"
    for line in first.condition.splitlines():
        yield f"  {line.rstrip()}"


def _describe(access: Any) -> dict[str, object]:
    """Say all of a row, with the names of the public API."""
    return {
        "decision": access.decision,
        "agent": access.agent,
        "tool": access.tool,
        "effect": access.effect,
        "grant": access.grant_id,
        "file": access.file,
        "environments": list(access.environments),
        "condition": access.condition,
        "limits": list(access.limits),
        "expires": write_time(access, "expires"),
        "credentials": [
            {"credential": use.credential, "engine": use.engine, "role": use.role}
            for use in access.credentials
        ],
        "targets": list(access.targets),
        "egress": list(access.egress),
        "last_used": write_time(access, "last_used"),
        "uses": access.uses,
    }


def _name_role(use: Any) -> str:
    return f"{use.engine}/{use.role}"


def _write_age(access: Any) -> str:
    """Say how long ago it was used: "never", "now", "5 min", "3 h", "12 d"."""
    if access.decision == "forbid":
        return "-"
    if not access.HasField("last_used"):
        return "never"
    seconds = (datetime.now(UTC) - access.last_used.ToDatetime(UTC)).total_seconds()
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now"
