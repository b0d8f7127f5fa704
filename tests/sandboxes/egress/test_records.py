"""Records of connections: the same on both wires and in the store, and checked wherever they are made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sandboxes.egress.codec import ControlError
from sandboxes.egress.records import (
    MAX_KEPT,
    ConnectionEntry,
    ConnectionRecord,
    Outcome,
    keep_connections,
    lost_record,
)

START = datetime(2026, 1, 1, 12, 0, 0, 123_457, UTC)
RECORD = ConnectionRecord("orders-db", "127.0.0.1:5432", START, START, 1, 2, Outcome.ENDED)
FULL = replace(
    RECORD,
    target="",
    detail="why",
    method="VERSION-CONTROL",
    path_template="/a/{b:slug}",
    status=200,
    rule="GET /a/{b:slug}",
    grant_rule="GET /a/b",
    injected="key",
    stripped=2,
    request_sha256="0" * 64,
    response_sha256="f" * 64,
)


@pytest.mark.parametrize("record", [RECORD, FULL])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_reads_the_record_that_it_wrote(record: ConnectionRecord, outcome: Outcome) -> None:
    record = replace(record, outcome=outcome)
    entry = ConnectionEntry.of(record)

    assert entry.record == record
    assert ConnectionEntry.read(entry.document()) == entry


def test_writes_no_more_than_there_is_to_say() -> None:
    assert len(ConnectionEntry.of(RECORD).document()) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"target": "Orders"},
        {"target": "x" * 64},
        {"method": "get"},
        {"method": "-GET"},
        {"method": "G" * 21},
        {"method": "SECRET=1"},
        {"path_template": "/a\nb"},
        {"rule": "x" * 2_001},
        {"status": -1},
        {"status": 1_000},
        {"status": True},
        {"stripped": 2**32},
        {"request_sha256": "0" * 63},
        {"response_sha256": "F" * 64},
        {"outcome": "fine"},
        {"outcome": ["ended"]},
        {"opened_micros": 1.5},
        {"more": 1},
    ],
)
def test_refuses_what_cannot_be(change: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        ConnectionEntry.read(ConnectionEntry.of(RECORD).document() | change)


@pytest.mark.parametrize("document", [None, [], "x", {}, {"target": "orders-db"}])
def test_refuses_what_is_no_record(document: object) -> None:
    with pytest.raises(ControlError):
        ConnectionEntry.read(document)


def test_makes_a_record_of_a_death_whatever_is_said_of_it() -> None:
    lost = lost_record(START, "killed by\nsignal 9 \u202e" + "x" * 2_000)

    assert ConnectionEntry.of(lost).record == lost


def test_keeps_the_earliest_and_counts_the_others() -> None:
    later = [replace(RECORD, opened=START + timedelta(seconds=one)) for one in range(1, MAX_KEPT + 2)]

    kept, dropped = keep_connections([*later, RECORD])

    assert (kept[0], len(kept), dropped) == (RECORD, MAX_KEPT, 2)


def test_keeps_that_a_process_died_before_all_others() -> None:
    lost = lost_record(START + timedelta(hours=1), "it died")

    kept, dropped = keep_connections([*[RECORD] * MAX_KEPT, lost])

    assert (kept[-1], len(kept), dropped) == (lost, MAX_KEPT, 1)


def test_keeps_what_came_after_a_flood_of_another_kind() -> None:
    """A tool asks for nothing, or for the same, until nothing more is kept; then it does what it came for."""
    nothing = [replace(RECORD, target="", outcome=Outcome.REFUSED)] * MAX_KEPT
    same = [replace(RECORD, rule="GET /a")] * MAX_KEPT
    later = START + timedelta(hours=1)
    last = [replace(RECORD, opened=later, rule=rule) for rule in ("POST /a", "GET /a")]

    kept, dropped = keep_connections([*nothing, *same, *last])

    assert (kept[-1], len(kept), dropped) == (last[0], MAX_KEPT, MAX_KEPT + 2)
    assert [one.target for one in kept].count("") == MAX_KEPT // 2
    assert [one.rule for one in kept].count("GET /a") == MAX_KEPT // 2 - 1


def test_control_the_earliest_alone_would_all_be_of_the_flood() -> None:
    last = replace(RECORD, opened=START + timedelta(hours=1))
    flood = [replace(RECORD, target="", outcome=Outcome.REFUSED)] * MAX_KEPT
    earliest = sorted([*flood, last], key=lambda one: one.opened)[:MAX_KEPT]

    assert (last in earliest, last in keep_connections([*flood, last])[0]) == (False, True)
