"""`toolcrib egress log`: each connection of a call, and why there is none or not all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from broker.api.messages import call_message
from broker.cli.egress_log import count_connections, show_connections
from broker.model import CallState
from sandboxes.egress.records import ConnectionRecord, Outcome, lost_record
from tests.contracts.stores import make_call
from toolcrib.v1 import broker_pb2

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(millis: int) -> datetime:
    return START + timedelta(milliseconds=millis)


SEARCH = ConnectionRecord(
    "github",
    "192.0.2.7:443",
    at(12),
    at(47),
    210,
    4_100,
    Outcome.ENDED,
    method="GET",
    path_template="/repos/{owner:slug}/{repo:slug}/issues",
    status=200,
    rule="GET /repos/{owner:slug}/{repo:slug}/issues",
    injected="github",
    stripped=1,
)
REFUSED = ConnectionRecord(
    "", "", at(50), at(50), 90, 0, Outcome.REFUSED, "no target has this origin", method="GET"
)
TCP = ConnectionRecord(
    "orders-db", "127.0.0.1:5432", at(60), at(2_060), 900, 2 * 10**9, Outcome.CUT, "too much"
)


def message(
    *connections: ConnectionRecord, state: CallState = CallState.SUCCEEDED, dropped: int = 0
) -> broker_pb2.Call:
    call = make_call("c1", state=state, started=START, connections=connections, connections_dropped=dropped)
    return call_message(call, for_people=True)


def test_shows_each_connection_in_a_line_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(SEARCH, REFUSED, TCP), "table")

    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 80
    assert [line.split()[0] for line in out[:4]] == ["#", "1", "2", "3"]
    assert "2.0 GB" in out[3]
    assert out[3].endswith("cut")


def test_says_below_by_which_rule_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(SEARCH, SEARCH, REFUSED, SEARCH), "table")

    out = capsys.readouterr().out
    assert "1-2, 4: rule GET /repos/{owner:slug}/{repo:slug}/issues\n" in out
    assert "1-2, 4: credential github was added\n" in out
    assert "3: no target has this origin\n" in out


def test_gives_programs_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(SEARCH, dropped=2), "json")

    said = json.loads(capsys.readouterr().out)
    (one,) = said["connections"]
    assert (said["call_id"], said["state"], said["connections_dropped"]) == ("c1", "SUCCEEDED", 2)
    assert (one["address"], one["opened"]) == ("192.0.2.7:443", "2026-01-01T00:00:00.012Z")
    assert (one["status"], one["bytes_down"], one["stripped"]) == (200, 4_100, 1)


def test_gives_spreadsheets_the_headings_also_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(), "csv")

    assert capsys.readouterr().out.startswith("target,address,opened,closed,method,path_template,status")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (CallState.SUCCEEDED, "none is on record"),
        (CallState.DISPATCHED, "has not finished"),
        (CallState.REFUSED, "its tool did not run"),
    ],
)
def test_says_why_there_is_none(state: CallState, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(state=state), "table")

    assert text in capsys.readouterr().err


def test_says_that_the_record_is_not_complete(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(SEARCH, lost_record(at(70), "the HTTP proxy died"), dropped=1), "table")

    said = capsys.readouterr()
    assert "2: the HTTP proxy died" in said.out
    assert "not complete" in said.err


def test_counts_what_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    show_connections(message(SEARCH, dropped=3), "table")

    assert "3 more were made" in capsys.readouterr().err


def test_counts_connections_in_a_line() -> None:
    call = message(SEARCH, SEARCH, REFUSED, TCP, lost_record(at(70), "it died"), dropped=3)

    assert count_connections(call) == (
        "github 2, - 1, orders-db 1; 1 refused; 3 more not kept; the record is not complete"
    )


def test_says_nothing_in_a_line_of_a_call_without_connections() -> None:
    assert count_connections(message()) == ""


def test_sends_a_terminal_nothing_that_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    call = message(SEARCH)
    call.connections[0].detail = "\x1b]0;title\x07"
    call.connections[0].outcome = "\x1b[31m"

    show_connections(call, "table")

    assert "\x1b" not in capsys.readouterr().out
