"""Somebody who may write to Vault's log, or holds the broker's session, deceives no comparison."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.reconciliation.comparison import LogLines
from broker.reconciliation.ledger import Window
from tests.broker.two_logs import PATH, TwoLogs

OTHER_POLICY = "toolcrib-tool-database-shop-refund"


@pytest.fixture
def logs() -> TwoLogs:
    """Both sides of one call."""
    logs = TwoLogs()
    logs.run_call()
    return logs


def change(logs: TwoLogs, at: int, part: str, **fields: Any) -> None:
    """Edit one line of Vault's log."""
    entry = json.loads(logs.lines[at])
    entry[part] |= fields
    logs.lines[at] = json.dumps(entry).encode() + b"\n"


# --- a token that hides behind a call that failed ----------------------------------------------------------
def steal(logs: TwoLogs, label: dict[str, str]) -> None:
    """Read another tool's login with the stolen session, under a call's label, and end it again."""
    child = logs.make_child(label, "thief", OTHER_POLICY)
    logs.read_login(child, "database/creds/shop-refund/x", "database/creds/shop-refund")
    logs.end("thief", "database/creds/shop-refund/x")


async def test_is_not_deceived_by_the_label_of_a_call_whose_tool_ran_and_failed(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.record("call.failed", label, leases=[], reason="TOOL_FAILED")
    steal(logs, label)
    assert await logs.differences() == [("not in our record", label["call_id"])]


async def test_is_not_deceived_by_the_bare_id_of_a_call_that_failed_to_mint(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.record("call.failed", label, leases=[], reason="CREDENTIALS_UNAVAILABLE")
    steal(logs, {**label, "digest": "00" * 32})
    assert await logs.differences() == [("not in our record", label["call_id"])]


async def test_control_the_whole_label_of_a_call_that_failed_to_mint_hides_it(logs: TwoLogs):
    """What docs/review.md says that this cannot show."""
    label = logs.label()
    logs.record("call.reserved", label)
    logs.record("call.failed", label, leases=[], reason="CREDENTIALS_UNAVAILABLE")
    steal(logs, label)
    found = await logs.compare()
    assert (found.differences, found.count.given_up) == ([], 1)


# --- lines that were edited or put in ----------------------------------------------------------------------
async def test_names_a_second_making_of_one_token(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.make_child({**label, "tenant": "rival"}, "a")
    logs.make_child(label, "a")
    kinds = [kind for kind, _ in await logs.differences()]
    assert kinds == ["changed line", "not in our record"]


async def test_goes_on_after_a_token_that_was_made_for_two_calls(logs: TwoLogs):
    first, second = logs.label(), logs.label()
    logs.record("call.reserved", first)
    logs.record("call.reserved", second)
    logs.make_child(first, "a")
    logs.make_child(second, "a")
    logs.end("a")
    logs.record("call.failed", second, leases=[], reason="CREDENTIALS_UNAVAILABLE")
    logs.record("call.failed", first, leases=[], reason="CREDENTIALS_UNAVAILABLE")
    assert ("changed line", first["call_id"]) in await logs.differences()


@pytest.mark.parametrize("line", [-2, -1])
@pytest.mark.parametrize(
    "fields",
    [{"policies": ["default"]}, {"accessor": "b"}, {"metadata": {}}],
    ids=lambda one: next(iter(one)),
)
async def test_finds_a_line_that_no_longer_says_whose_request_it_was(
    logs: TwoLogs, line: int, fields: dict[str, Any]
):
    logs.run_call()
    logs.read_login(logs.make_child(logs.label(), "a"), f"{PATH}/a")
    before = await logs.differences()
    change(logs, line, "auth", **fields)
    assert ("changed line", "") in set(await logs.differences()) - set(before)


async def test_names_a_lease_of_a_token_of_which_no_other_line_tells(logs: TwoLogs):
    """The making was taken out, and who asked is gone from the request's line."""
    logs.read_login({"accessor": "a", "policies": ["toolcrib-tool-database-shop-read"]}, f"{PATH}/a")
    change(logs, -2, "auth", policies=["default"])
    found = (await logs.compare()).differences
    assert ("not in our record", f"{PATH}/a") in [(one.kind.value, one.lease_id) for one in found]


# --- files and times ----------------------------------------------------------------------------------------
async def test_says_that_the_last_line_of_an_earlier_file_was_cut_off(logs: TwoLogs):
    cut = LogLines([io.BytesIO(logs.lines[0] + logs.lines[1][:40]), io.BytesIO()])
    *_, last = cut.read()
    assert last == logs.lines[1][:40] + b"\n"


def test_waits_for_the_end_of_a_line_in_the_last_of_several_files():
    last = io.BytesIO(b"b\nc")
    lines = LogLines([io.BytesIO(b"a\n"), last])
    assert list(lines.read()) == [b"a\n", b"b\n"]
    last.write(b"d\n")
    last.seek(3)
    assert list(lines.read()) == [b"cd\n"]
    assert lines.locate(3) == (1, 2)


@pytest.mark.parametrize(
    "edge", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)]
)
async def test_takes_a_window_that_reaches_to_the_edge_of_time(logs: TwoLogs, edge: datetime):
    assert await logs.differences(Window(since=edge, until=edge)) == []


async def test_outlives_times_that_nobody_means(logs: TwoLogs):
    for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        at = json.loads(logs.lines[-1]) | {"time": time}
        logs.lines.append(json.dumps(at).encode() + b"\n")
    assert {kind for kind, _ in await logs.differences()} == {"no request"}
