"""Our record and Vault's log agree lease by lease, or somebody is told what to look at."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit import ChainBroken
from broker.reconciliation.comparison import LogLines
from broker.reconciliation.ledger import Window
from broker.reconciliation.vault_log import MAX_LINE_BYTES, LogHidden
from tests.broker.two_logs import PATH, POLICY, TwoLogs

HOUR = timedelta(hours=1)


@pytest.fixture
def logs() -> TwoLogs:
    """Both sides of three calls."""
    logs = TwoLogs()
    for _ in range(3):
        logs.run_call()
    return logs


# --- what agrees -----------------------------------------------------------------------------------------
async def test_finds_nothing_where_both_sides_agree(logs: TwoLogs):
    found = await logs.compare()
    assert (found.differences, found.count.agree, found.count.open) == ([], 3, 0)


@pytest.mark.parametrize("hours", [-26, -1, 1, 26])
async def test_takes_clocks_that_differ_for_no_difference(hours: int):
    logs = TwoLogs()
    logs.skew = timedelta(hours=hours)
    for _ in range(3):
        logs.run_call()
    assert await logs.differences() == []


async def test_leaves_a_call_that_still_runs_open(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/a")
    found = await logs.compare()
    assert (found.differences, found.count.open) == ([], 1)


async def test_leaves_a_lease_that_is_owed_on_both_sides_open(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/a")
    logs.succeed(label, "a", f"{PATH}/a")
    assert (await logs.compare()).count.open == 1


async def test_takes_an_end_that_is_asked_for_again_for_no_difference(logs: TwoLogs):
    _, accessor, lease_id = logs.run_call()
    logs.end(accessor, lease_id)
    assert await logs.differences() == []


async def test_agrees_on_a_child_without_a_lease():
    logs = TwoLogs()
    label = logs.label()
    logs.record("call.reserved", label)
    child = logs.make_child(label, "a", "toolcrib-tool-database_static-batch")
    logs.read_login(child, "", "database/static-creds/batch")
    lease = {"lease": "none/database_static/batch/a", "accessor": "a", "credential": "c"}
    logs.record("call.succeeded", label, leases=[{**lease, "engine": "database_static", "role": "batch"}])
    logs.end("a")
    logs.record("lease.ended", label, **lease)
    assert await logs.differences() == []


async def test_agrees_on_a_lease_whose_answer_was_lost(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/nobody-knows")
    lease = {"lease": "unknown/a", "accessor": "a", "engine": "database", "role": "shop-read"}
    logs.record("call.failed", label, leases=[{**lease, "credential": "c"}])
    logs.end("a")
    logs.record("lease.ended", label, **lease)
    assert await logs.differences() == []


async def test_takes_a_mint_that_was_given_up_and_ended_for_no_difference(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.make_child(label, "a")
    logs.end("a")
    logs.record("call.failed", label, leases=[], reason="CREDENTIALS_UNAVAILABLE")
    found = await logs.compare()
    assert (found.differences, found.count.given_up) == ([], 1)


async def test_explains_by_what_was_written_after_the_log_was_read(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.make_child(label, "a")
    logs.end("a")
    whole, read = list(logs.records), 0

    async def records_after(sequence: int):
        nonlocal read
        for record in (whole[:-1] if read == 0 else whole)[sequence:]:
            yield record
        read += 1

    logs.records_after = records_after  # type: ignore[method-assign]
    assert await logs.differences() == []


async def test_does_not_look_in_the_log_for_what_was_made_after_it(logs: TwoLogs):
    whole, read, known = logs, 0, len(logs.lines)
    logs.run_call()
    late, logs.lines = list(logs.records), logs.lines[:known]

    async def records_after(sequence: int):
        nonlocal read
        for record in (late[:-3] if read == 0 else late)[sequence:]:
            yield record
        read += 1

    whole.records_after = records_after  # type: ignore[method-assign]
    assert await whole.differences() == []


async def test_agrees_on_a_lease_that_the_next_broker_ended(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/a")
    lease = {"lease": f"{PATH}/a", "accessor": "a", "engine": "database", "role": "shop-read"}
    logs.record("call.adopted", label, leases=[lease])
    logs.end("a", f"{PATH}/a")
    logs.record("lease.ended", label, **lease)
    assert (await logs.compare()).count.agree == 4


async def test_says_that_a_broker_was_killed_between_a_mint_and_its_record(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/a")
    logs.record("call.adopted", label)
    (found,) = (await logs.compare()).differences
    assert found.kind.value == "not in our record" and "killed" in found.detail


# --- what is missing -------------------------------------------------------------------------------------
async def test_names_a_lease_that_vaults_log_does_not_have(logs: TwoLogs):
    known = len(logs.lines)
    label, accessor, _ = logs.run_call()
    del logs.lines[known:]
    (found,) = (await logs.compare()).differences
    assert (found.kind.value, found.call_id, found.accessor) == (
        "not in Vault's log",
        label["call_id"],
        accessor,
    )


async def test_names_a_token_that_our_record_does_not_have(logs: TwoLogs):
    logs.read_login(logs.make_child(logs.label(call_id="stolen"), "thief"), f"{PATH}/x")
    logs.end("thief", f"{PATH}/x")
    (found,) = (await logs.compare()).differences
    assert (found.kind.value, found.accessor, found.lease_id) == ("not in our record", "thief", f"{PATH}/x")


async def test_is_not_deceived_by_the_label_of_a_real_call(logs: TwoLogs):
    label, _, _ = logs.run_call()
    logs.read_login(logs.make_child(label, "thief"), f"{PATH}/x")
    logs.end("thief", f"{PATH}/x")
    assert await logs.differences() == [("not in our record", label["call_id"])]


async def test_is_not_deceived_by_the_label_of_a_call_that_failed_long_ago(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.record("call.failed", label, leases=[])
    logs.now += HOUR
    logs.run_call()
    logs.make_child(label, "thief")
    logs.end("thief")
    assert await logs.differences() == [("not in our record", label["call_id"])]


async def test_is_not_deceived_by_half_the_label_of_a_running_call(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.make_child({**label, "tenant": "rival"}, "thief")
    assert await logs.differences() == [("not in our record", label["call_id"])]


async def test_names_a_second_lease_of_a_token(logs: TwoLogs):
    label, accessor = logs.label(), "a"
    logs.record("call.reserved", label)
    child = logs.make_child(label, accessor)
    logs.read_login(child, f"{PATH}/1")
    logs.read_login(child, f"{PATH}/2")
    logs.succeed(label, accessor, f"{PATH}/1")
    logs.end(accessor, f"{PATH}/1")
    logs.record("lease.ended", label, lease=f"{PATH}/1", accessor=accessor)
    (found,) = (await logs.compare()).differences
    assert (found.kind.value, found.lease_id) == ("not in our record", f"{PATH}/2")


async def test_names_an_end_that_our_record_does_not_have(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    logs.read_login(logs.make_child(label, "a"), f"{PATH}/a")
    logs.succeed(label, "a", f"{PATH}/a")
    logs.end("a", f"{PATH}/a")
    logs.now += HOUR
    logs.run_call()
    assert await logs.differences() == [("end not in our record", label["call_id"])]


@pytest.mark.parametrize("pair", range(6))
async def test_finds_every_request_that_was_taken_out_of_vaults_log(logs: TwoLogs, pair: int):
    known = len(logs.lines)
    label, *_ = logs.run_call()
    del logs.lines[known + 2 * pair : known + 2 * pair + 2]
    assert any(call_id == label["call_id"] for _, call_id in await logs.differences())


@pytest.mark.parametrize("line", range(12))
async def test_finds_every_single_line_that_was_taken_out(logs: TwoLogs, line: int):
    known = len(logs.lines)
    logs.run_call()
    del logs.lines[known + line]
    assert await logs.differences() != []


# --- what was changed ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["call_id", "tenant", "environment", "digest"])
async def test_names_a_label_that_is_not_that_of_our_record(name: str):
    logs = TwoLogs()
    label, *_ = logs.run_call()
    said = f'"{name}": "{label[name]}"'.encode()
    logs.lines = [line.replace(said, f'"{name}": "another"'.encode()) for line in logs.lines]
    (found,) = (await logs.compare()).differences
    assert found.kind.value == "other label" and name in found.detail


async def test_names_a_role_that_is_not_that_of_our_record():
    logs = TwoLogs()
    label, *_ = logs.run_call()
    logs.lines = [line.replace(b"shop-read", b"shop-refund") for line in logs.lines]
    assert ("other label", label["call_id"]) in await logs.differences()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"accessor": "accessor-2"', b'"accessor": "accessor-9"'),
        (b"creds/shop-read", b"creds/shop-root"),
        (b'"operation": "read"', b'"operation": "list"'),
        (b"invalid accessor", b"permission denied"),
        (b'"type": "response"', b'"type": "request"'),
        (b'{"time"', b'{"time'),
    ],
)
async def test_finds_one_changed_line(logs: TwoLogs, before: bytes, after: bytes):
    at = max(number for number, line in enumerate(logs.lines) if before in line)
    logs.lines[at] = logs.lines[at].replace(before, after)
    assert await logs.differences() != []


async def test_says_which_line_cannot_be_read(logs: TwoLogs):
    logs.lines.insert(5, b"\x00\xff garbage\n")
    (found,) = (await logs.compare()).differences
    assert (found.kind.value, found.line) == ("unreadable line", 6)


async def test_believes_no_record_of_a_chain_that_does_not_hold(logs: TwoLogs):
    record = logs.records[4]
    logs.records[4] = replace(record, payload=record.payload.replace("shop", "shoq"))
    with pytest.raises(ChainBroken, match="record 5 was changed"):
        await logs.compare()


async def test_names_a_child_that_went_elsewhere(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    child = logs.make_child(label, "a")
    logs.request("database/creds/shop-refund", child, error="permission denied")
    assert await logs.differences() == [("other use", label["call_id"])]


async def test_names_a_child_of_an_engine_that_is_not_there(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    child = logs.make_child(label, "a", "toolcrib-tool-oracle-x")
    logs.read_login(child, "", "oracle/creds/x")
    assert ("other use", label["call_id"]) in await logs.differences()


async def test_names_a_token_whose_making_was_hidden_by_wrapping(logs: TwoLogs):
    session = {"accessor": "a0", "policies": ["toolcrib-broker"]}
    wrapped = {"wrap_info": {"accessor": "w", "wrapped_accessor": "thief"}}
    logs.request("auth/token/create/toolcrib-call", session, {}, response=wrapped)
    (found,) = (await logs.compare()).differences
    assert (found.kind.value, found.accessor) == ("not in our record", "thief")


async def test_names_a_child_that_asked_for_a_wrapped_answer(logs: TwoLogs):
    label = logs.label()
    logs.record("call.reserved", label)
    child = logs.make_child(label, "a")
    logs.request(PATH, child, wrap_ttl=60)
    assert await logs.differences() == [("other use", label["call_id"])]


async def test_expects_no_answer_to_vaults_test_of_the_device(logs: TwoLogs):
    logs.request("sys/audit/test", {"accessor": ""})
    del logs.lines[-1]
    logs.now += HOUR
    logs.run_call()
    assert await logs.differences() == []


async def test_names_a_request_whose_answer_is_long_overdue(logs: TwoLogs):
    logs.request("sys/mounts", {"accessor": "root"})
    del logs.lines[-1]
    assert await logs.differences() == []
    logs.now += HOUR
    logs.run_call()
    assert await logs.differences() == [("no response", "")]


async def test_refuses_a_log_that_hides_accessors():
    logs = TwoLogs()
    logs.make_child(logs.label(), "hmac-sha256:00ff")
    with pytest.raises(LogHidden, match="hmac_accessor"):
        await logs.compare()


async def test_counts_the_ends_that_a_log_hides(logs: TwoLogs):
    logs.lines = [
        line.replace(b'"lease_id": "database', b'"lease_id": "hmac-sha256:') if b"sys/" in line else line
        for line in logs.lines
    ]
    found = await logs.compare()
    assert found.hidden > 0
    assert {one.kind.value for one in found.differences} == {"end not in Vault's log"}


# --- the window, files and memory ------------------------------------------------------------------------
async def test_does_not_ask_a_rotated_log_for_what_is_older():
    logs = TwoLogs()
    logs.now -= 3 * HOUR
    logs.run_call(call_id="c" + "0" * 25)
    logs.lines.clear()
    logs.now += 3 * HOUR
    since = logs.now - timedelta(minutes=5)
    logs.run_call()
    assert len(await logs.differences()) == 1
    assert await logs.differences(Window(since=since)) == []


async def test_finds_a_stolen_token_in_the_window_with_the_label_of_an_old_call(logs: TwoLogs):
    label, *_ = logs.run_call(call_id="c" + "0" * 25)
    since = logs.now
    logs.now += HOUR
    logs.make_child(label, "thief")
    assert await logs.differences(Window(since=since)) == [("not in our record", label["call_id"])]


async def test_asks_an_older_copy_of_the_log_for_nothing_newer(logs: TwoLogs):
    until, known = logs.now - timedelta(minutes=1), len(logs.lines)
    logs.run_call()
    del logs.lines[known:]
    assert await logs.differences(Window(until=until)) == []


def test_reads_several_files_and_knows_the_place_of_a_line():
    lines = LogLines([io.BytesIO(b"a\nb"), io.BytesIO(b"c\nd")])
    assert [*lines.read(), *lines.read_rest()] == [b"a\n", b"b\n", b"c\n", b"d"]
    assert [lines.locate(number) for number in (2, 3)] == [(0, 2), (1, 1)]


def test_waits_for_the_end_of_a_line_that_is_being_written():
    file = io.BytesIO(b"a\nb")
    lines = LogLines([file])
    assert list(lines.read()) == [b"a\n"]
    file.write(b"c\n")
    file.seek(3)
    assert list(lines.read()) == [b"bc\n"]


def test_keeps_only_the_beginning_of_a_line_without_end():
    lines = LogLines([io.BytesIO(b"x" * (3 * MAX_LINE_BYTES) + b"\ny\n")])
    first, second = lines.read()
    assert (len(first), second) == (MAX_LINE_BYTES + 1, b"y\n")


@pytest.mark.parametrize("skew", [timedelta(), timedelta(seconds=5)])
async def test_remembers_no_more_than_what_is_open(skew: timedelta):
    logs = TwoLogs()
    logs.skew = skew
    for _ in range(500):
        logs.run_call()
    found = await logs.compare()
    assert found.count.agree == 500
    assert found.most_held <= 10 + 2 * skew.seconds


async def test_asks_no_child_for_a_policy_of_ours_twice(logs: TwoLogs):
    """A token with our policies that was made outside the token role is one of ours to explain, too."""
    logs.make_child({}, "admin", POLICY)
    assert await logs.differences() == [("not in our record", "")]


def test_writes_the_log_that_openbao_writes(logs: TwoLogs):
    entry = json.loads(logs.lines[1])
    assert set(entry) >= {"time", "type", "auth", "request", "response"}
