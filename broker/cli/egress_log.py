"""`toolcrib egress log`: what the tool of a call reached, and what it was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import list_output_option, show, table, terminal_columns, to_json, to_printable, wrap
from broker.cli.times import write_span, write_time
from toolcrib.v1 import broker_pb2, broker_pb2_grpc

HEADINGS = (
    "target",
    "address",
    "opened",
    "closed",
    "method",
    "path_template",
    "status",
    "bytes_up",
    "bytes_down",
    "outcome",
    "detail",
    "rule",
    "grant_rule",
    "injected",
    "stripped",
    "request_sha256",
    "response_sha256",
)
LOST = "lost"
REFUSED = frozenset({"refused", "protocol_refused"})
_UNFINISHED = frozenset({broker_pb2.CLAIMED, broker_pb2.RESERVED, broker_pb2.DISPATCHED})
_WHOLE = ("#", "after", "status", "up", "down", "took", "outcome")


@click.command("log")
@click.argument("call_id", metavar="CALL")
@profile_option
@list_output_option
def log(call_id: str, profile: str | None, form: str) -> None:
    """Show what the tool of CALL connected to, and what it was refused.

    One line for each HTTP exchange, or connection that was carried unopened, in the order of their
    beginnings; below, by the line's number, what more there is to say: the rule, the credential that was
    added, why it was refused. For people of the call's tenant.
    """
    with connect(profile) as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        call = ask(stub.GetCall, broker_pb2.GetCallRequest(call_id=call_id)).call
    show_connections(call, form)


def show_connections(call: Any, form: str) -> None:
    """Print what a call connected to; what the list does not say, on stderr."""
    rows = [describe_connection(one) for one in call.connections]
    if form == "json":
        click.echo(to_json({**_head(call), "connections": rows}))
    elif form == "csv":
        show(rows, form, empty="", headings=HEADINGS)
    else:
        _print_table(call)
    if text := _caution(call):
        click.echo(to_printable(text), err=True)


def describe_connection(one: Any) -> dict[str, object]:
    """Say all of a connection, with the names of the public API."""
    return {
        name: write_time(one, name) if name in ("opened", "closed") else getattr(one, name)
        for name in HEADINGS
    }


def count_connections(call: Any) -> str:
    """Say in a line what a call connected to; "" where there is nothing to say."""
    listed = [one for one in call.connections if one.outcome != LOST]
    if not call.connections and not call.connections_dropped:
        return ""
    counts = Counter(one.target or "-" for one in listed)
    parts = [f"{name} {count}" for name, count in counts.items()]
    refused = sum(one.outcome in REFUSED for one in listed)
    notes = [
        f"{refused} refused" if refused else "",
        f"{call.connections_dropped} more not kept" if call.connections_dropped else "",
        "the record is not complete" if len(listed) < len(call.connections) else "",
    ]
    return "; ".join([", ".join(parts) or "none is known", *filter(None, notes)])


def _head(call: Any) -> dict[str, object]:
    return {
        "call_id": call.call_id,
        "state": broker_pb2.CallState.Name(call.state),
        "connections_dropped": call.connections_dropped,
    }


def _print_table(call: Any) -> None:
    if not call.connections:
        return
    began = call.started.ToMicroseconds()
    rows = [_row(number, one, began) for number, one in enumerate(call.connections, 1)]
    for line in table(rows, terminal_columns(), _WHOLE):
        click.echo(line)
    notes: dict[str, list[int]] = {}
    for number, one in enumerate(call.connections, 1):
        for text in _notes(one):
            notes.setdefault(text, []).append(number)
    if notes:
        click.echo()
    for text, numbers in notes.items():
        first, *more = wrap(to_printable(f"{_ranges(numbers)}: {text}"), 0)
        click.echo("\n".join([first, *(f"    {line}" for line in more)]))


def _row(number: int, one: Any, began: int) -> dict[str, object]:
    opened = one.opened.ToMicroseconds()
    return {
        "#": number,
        "after": write_span(max(opened - began, 0)),
        "target": one.target or "-",
        "request": f"{one.method} {one.path_template}".strip() or "-",
        "status": one.status or "-",
        "up": _size(one.bytes_up),
        "down": _size(one.bytes_down),
        "took": write_span(max(one.closed.ToMicroseconds() - opened, 0)),
        "outcome": one.outcome,
    }


def _notes(one: Any) -> Iterator[str]:
    if one.rule:
        yield f"rule {one.rule}"
    if one.grant_rule:
        yield f"grant's rule {one.grant_rule}"
    if one.injected:
        yield f"credential {one.injected} was added"
    if one.stripped:
        yield f"its secret came back and was taken out, {one.stripped} times"
    if one.detail:
        yield one.detail


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers in short: "1-3, 7"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, one)) for one in ranges)


def _size(count: int) -> str:
    """Write a number of bytes in the unit that suits it: "840 B", "12.3 kB"."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def _caution(call: Any) -> str:
    """Say what the list does not: why it is empty, or not all of it is there."""
    if any(one.outcome == LOST for one in call.connections):
        return "the record is not complete: a process that carried the call's connections died, see above"
    if call.connections_dropped:
        return f"{call.connections_dropped} more were made; of these only the number is kept"
    if call.connections:
        return ""
    if call.state in _UNFINISHED:
        return "the call has not finished: what its tool connects to is written down with its end"
    if call.state == broker_pb2.REFUSED:
        return "none: the call was refused, its tool did not run"
    return "none is on record; agents are not shown any, ask as a person of the call's tenant"
