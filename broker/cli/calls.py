"""`toolcrib calls`: the record of what was asked and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option, read_all
from broker.cli.egress_log import count_connections, describe_connection
from broker.cli.output import (
    Commands,
    list_output_option,
    output_option,
    show,
    show_one,
    table,
    terminal_columns,
    to_json,
    to_printable,
)
from broker.cli.times import write_second, write_short_id, write_span, write_time
from toolcrib.v1 import broker_pb2, broker_pb2_grpc, options_pb2, reasons_pb2

STATES = [name for name in broker_pb2.CallState.DESCRIPTOR.values_by_name if name != "CALL_STATE_UNSPECIFIED"]

PARTS = ("stages", "leases", "sandboxes", "artefacts", "connections", "connections_dropped", "tool_log")
"""What of a record is a list or a text of its own."""


PLACES = {"resolve": "broker.cli.resolving:resolve", "artefact": "broker.cli.artefacts:artefact"}


@click.group(cls=Commands, places=PLACES)
def calls() -> None:
    """Read what became of calls. Agents see their own, people those of their tenant."""


@calls.command("list")
@click.option("--tool", default="", metavar="TOOL", help="Only calls of this tool.")
@click.option(
    "--state",
    metavar="STATE",
    type=click.Choice(STATES, case_sensitive=False),
    help=f"Only calls in this state: {', '.join(STATES)}.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@profile_option
@list_output_option
def list_calls(tool: str, state: str | None, limit: int, profile: str | None, form: str) -> None:
    """List calls, newest first."""
    request = broker_pb2.ListCallsRequest(
        tool=tool,
        state=state,
        page_size=min(limit, 500),
    )
    with connect(profile) as channel:
        found = read_all(broker_pb2_grpc.BrokerStub(channel).ListCalls, request, "calls", limit)
    if form == "json":
        click.echo(to_json([_describe(item) for item in found]))
        return
    if form == "csv":
        plain = [{k: v for k, v in _describe(item).items() if k not in PARTS} for item in found]
        show(plain, form, empty="")
        return
    show([_summarize(item) for item in found], form, empty="no calls", whole=("call", "started", "outcome"))


@calls.command("show")
@click.argument("call_id", metavar="ID")
@profile_option
@output_option
def show_call(call_id: str, profile: str | None, form: str) -> None:
    """Show one call: its stages with their times, its credentials, its container, its files."""
    with connect(profile) as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        answer = ask(stub.GetCall, broker_pb2.GetCallRequest(call_id=call_id))
    record = _describe(answer.call)
    result = json.loads(answer.result_json) if answer.result_json else None
    if form == "json":
        click.echo(to_json({**record, "result": result}))
        return
    show_one({name: _flatten(value) for name, value in record.items() if value and name not in PARTS}, form)
    for title, rows in (
        ("stages", list(_stages(answer.call))),
        ("credentials", record["leases"]),
        ("containers", record["sandboxes"]),
        ("artefacts", record["artefacts"]),
    ):
        _print_part(title, rows)
    if connections := count_connections(answer.call):
        click.echo(to_printable(f"\nconnections\n  {connections} (toolcrib egress log {call_id})"))
    if result is not None:
        click.echo(f"\nresult\n{to_json(result)}")
    if answer.call.tool_log:
        click.echo(f"\ntool's log\n{to_printable(answer.call.tool_log.rstrip())}")


def _summarize(call: Any) -> dict[str, object]:
    return {
        "call": call.call_id,
        "started": write_second(call, "started")[5:16],
        "agent": call.agent,
        "tool": call.tool.rpartition("/")[2],
        "outcome": _outcome(call),
    }


def _outcome(call: Any) -> str:
    """Say why where there is a reason, and the state where there is none."""
    return _reason(call) or broker_pb2.CallState.Name(call.state)


def _reason(call: Any) -> str:
    return reasons_pb2.Reason.Name(call.reason).removeprefix("REASON_") if call.reason else ""


def _describe(call: Any) -> dict[str, Any]:
    """Say all of a record, with the names of the public API."""
    return {
        "call_id": call.call_id,
        "state": broker_pb2.CallState.Name(call.state),
        "reason": _reason(call),
        "message": call.message,
        "tool": call.tool,
        "tool_version": call.tool_version,
        "effect": options_pb2.Effect.Name(call.effect) if call.effect else "",
        "tenant": call.tenant,
        "environment": call.environment,
        "agent": call.agent,
        "subject": call.subject,
        "grant_id": call.grant_id,
        "started": write_time(call, "started"),
        "ended": write_time(call, "ended"),
        "request_digest": call.request_digest,
        "labels": list(call.labels),
        "workflow": call.workflow,
        "marks": list(call.marks),
        "removed": list(call.removed),
        "stages": [
            {
                "stage": stage.stage,
                "start_micros": stage.start_micros,
                "duration_micros": stage.duration_micros,
            }
            for stage in call.stages
        ],
        "leases": [
            {
                "credential": lease.credential,
                "engine": lease.engine,
                "role": lease.role,
                "username": lease.username,
                "minted": write_time(lease, "minted"),
                "confirmed_dead": write_time(lease, "confirmed_dead"),
            }
            for lease in call.leases
        ],
        "sandboxes": [
            {
                "container": write_short_id(sandbox.container_id),
                "image": write_short_id(sandbox.image_id),
                "made": write_time(sandbox, "made"),
                "gone": write_time(sandbox, "gone"),
            }
            for sandbox in call.sandboxes
        ],
        "artefacts": [
            {
                "name": artefact.name,
                "media_type": artefact.media_type,
                "bytes": artefact.size_bytes,
                "sha256": artefact.sha256,
            }
            for artefact in call.artefacts
        ],
        "connections": [describe_connection(one) for one in call.connections],
        "connections_dropped": call.connections_dropped,
        "tool_log": call.tool_log,
    }


def _stages(call: Any) -> Iterator[dict[str, object]]:
    longest = max((stage.duration_micros for stage in call.stages), default=0) or 1
    for stage in call.stages:
        yield {
            "stage": stage.stage,
            "after": write_span(stage.start_micros),
            "took": write_span(stage.duration_micros),
            "": "▪" * round(30 * stage.duration_micros / longest),
        }


def _print_part(title: str, rows: list[Any]) -> None:
    if not rows:
        return
    click.echo(f"\n{title}")
    shown = [{name: _shorten(name, value) for name, value in row.items()} for row in rows]
    whole = set(shown[0]) - {"username", "role", "name", "sha256"}
    for line in table(shown, terminal_columns() - 2, whole):
        click.echo(f"  {line}")


def _shorten(name: str, value: object) -> object:
    """Show the time of day only, and what has no end yet as such; the day stands in the head."""
    if name in ("minted", "made"):
        return str(value)[11:]
    if name in ("confirmed_dead", "gone"):
        return str(value)[11:] or "not yet"
    return value


def _flatten(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
