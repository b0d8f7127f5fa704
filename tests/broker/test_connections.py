"""What a tool connected to: in its call's record, the audit and the metrics, and who may see it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.connections import summarize_connections
from broker.errors import CallError
from broker.metrics import Metrics
from broker.model import Caller, CallRecord, CallState, Role
from broker.recovery import LOST_CONNECTIONS, adopt_unfinished
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent
from broker.trail import Recorder
from sandboxes.egress.records import MAX_KEPT, ConnectionRecord, Outcome, lost_record
from sandboxes.outcome import OutcomeKind, RawOutcome
from tests.broker.office import Channel, Office
from tests.broker.workshop import FakeEgress, Workshop
from tests.contracts.stores import event_of, make_call, run
from toolcrib.handler.v1 import handler_pb2
from toolcrib.v1 import broker_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = ConnectionRecord("orders-db", "127.0.0.1:5432", NOW, NOW, 10, 2_000, Outcome.ENDED)
SENT = ConnectionRecord(
    "github", "192.0.2.7:443", NOW, NOW, 7, 9, Outcome.ENDED, injected="github", stripped=2, status=200
)
REFUSED = replace(SENT, outcome=Outcome.REFUSED, injected="", stripped=0, bytes_up=0, bytes_down=0, status=0)
NOWHERE = ConnectionRecord("", "", NOW, NOW, 0, 0, Outcome.REFUSED, "no target has this origin")
OPERATOR = Caller("shop", "ada", Role.REVIEWER, "", "spiffe://x/tenant/shop/reviewer/ada")


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A shop whose tools connect to something."""
    monkeypatch.setattr(FakeEgress, "connections", (ENDED, SENT, NOWHERE))
    monkeypatch.setattr(FakeEgress, "uncounted", 4)
    return await Workshop.open()


async def read_newest(shop: Workshop) -> CallRecord:
    listed = (await shop.calls())[0]
    found = await shop.store.get_call("shop", listed.call_id)
    assert found is not None
    return found


def details(shop: Workshop, kind: str) -> dict[str, Any]:
    """Say what the audit has of the only event of a kind."""
    found = [json.loads(record.payload) for record in shop.store.state.audit]
    (event,) = [one for one in found if one["kind"] == kind]
    said: dict[str, Any] = event["details"]
    return said


# --- the record and the audit ----------------------------------------------------------------------------
async def test_stands_in_the_record_of_a_call_that_succeeded(shop: Workshop) -> None:
    await shop.path.answer(shop.lookup())

    call = await read_newest(shop)
    assert (call.state, call.connections, call.connections_dropped) == (
        CallState.SUCCEEDED,
        (ENDED, SENT, NOWHERE),
        4,
    )


async def test_stands_in_the_record_of_a_call_that_failed(shop: Workshop) -> None:
    async def fail(_start: handler_pb2.Start) -> RawOutcome:
        return RawOutcome(OutcomeKind.CRASHED)

    shop.tool = fail
    with pytest.raises(CallError):
        await shop.path.answer(shop.lookup())

    call = await read_newest(shop)
    assert (call.state, call.connections) == (CallState.FAILED, (ENDED, SENT, NOWHERE))
    assert details(shop, "call.failed")["connections"]["not_kept"] == 4


async def test_is_summed_up_by_target_in_the_audit(shop: Workshop) -> None:
    await shop.path.answer(shop.lookup())

    assert details(shop, "call.succeeded")["connections"] == {
        "targets": {
            "orders-db": {"count": 1, "bytes_up": 10, "bytes_down": 2_000},
            "github": {"count": 1, "bytes_up": 7, "bytes_down": 9, "injected": 1, "stripped": 2},
            "-": {"count": 1, "refused": 1},
        },
        "not_kept": 4,
    }


async def test_leaves_the_audit_of_a_call_that_connected_to_nothing_as_it_was(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEgress, "connections", ())
    monkeypatch.setattr(FakeEgress, "uncounted", 0)

    await shop.path.answer(shop.lookup())

    assert "connections" not in details(shop, "call.succeeded")


def test_stays_small_in_the_audit_whatever_a_tool_did() -> None:
    records = [ENDED, SENT, REFUSED, NOWHERE] * (MAX_KEPT // 4)

    assert len(json.dumps(summarize_connections(records, 10**9))) < 400


def test_says_in_the_audit_that_the_record_is_not_complete() -> None:
    assert summarize_connections([ENDED, lost_record(NOW, "it died")], 0)["lost"] == 1


async def test_is_not_known_of_a_call_that_the_broker_did_not_outlive(shop: Workshop) -> None:
    await shop.path.answer(shop.lookup())
    left = replace(await read_newest(shop), state=CallState.DISPATCHED, connections=())
    adopted = await adopt_unfinished(Left(left), shop.brakes)

    ((lost,),) = [call.connections for call in adopted]
    assert (lost.outcome, lost.detail) == (Outcome.LOST, LOST_CONNECTIONS)


async def test_is_nothing_of_a_call_that_never_ran(shop: Workshop) -> None:
    await shop.path.answer(shop.lookup())
    left = replace(await read_newest(shop), state=CallState.RESERVED, connections=())

    assert [call.connections for call in await adopt_unfinished(Left(left), shop.brakes)] == [()]


class Left(MemoryStore):
    """A store in which an earlier broker left one call."""

    def __init__(self, call: CallRecord) -> None:
        super().__init__()
        self._call = call

    async def unfinished(self) -> list[CallRecord]:
        return [self._call]

    async def adopt(self, _call: CallRecord, _audit: AuditEvent) -> None:
        """Take it over."""


# --- the metrics -----------------------------------------------------------------------------------------
async def test_is_counted_once_by_target_and_outcome(shop: Workshop) -> None:
    metrics = Metrics()
    recorder = Recorder(shop.store, shop.workflows.note, on_connections=metrics.count_connections)
    trail = recorder.begin(shop.lookup())

    with pytest.raises(ZeroDivisionError):
        async with recorder.open(trail):
            trail.connections = (ENDED, ENDED, NOWHERE)
            trail.recorded = True
            raise ZeroDivisionError

    name = "toolcrib_egress_connections_total"
    read = metrics.registry.get_sample_value
    assert read(name, {"target": "orders-db", "outcome": "ended"}) == 2
    assert read(name, {"target": "-", "outcome": "refused"}) == 1


def test_counts_names_without_end_as_one() -> None:
    metrics = Metrics()
    metrics.count_connections([replace(ENDED, target=f"t{number}") for number in range(2_000)])

    samples = [
        one for one in next(iter(metrics.connections.collect())).samples if one.name.endswith("_total")
    ]
    assert len(samples) < 600
    assert sum(one.value for one in samples) == 2_000


# --- who may see it --------------------------------------------------------------------------------------
async def end_call(office: Office) -> str:
    """Put a call of the assistant into the store; its id."""
    call = await run(office.store, make_call("c1", tenant="shop", agent="assistant", subject=""))
    ended = replace(call, state=CallState.SUCCEEDED, connections=(SENT, ENDED), connections_dropped=3)
    await office.store.complete(ended, event_of(ended))
    return "c1"


@pytest.fixture
async def office() -> Office:
    """The office, whose broker serves what people and agents ask."""
    opened = await Office.open()
    assert isinstance(opened, Office)
    return opened


async def test_is_shown_to_people_with_every_field(office: Office) -> None:
    call_id = await end_call(office)
    office.caller = OPERATOR

    call = (await office.get_call(call_id)).call

    first, second = call.connections
    assert (first.target, first.status, first.injected, first.stripped) == ("github", 200, "github", 2)
    assert (second.address, second.bytes_down, second.outcome) == ("127.0.0.1:5432", 2_000, "ended")
    assert (second.opened.ToDatetime(UTC), call.connections_dropped) == (NOW, 3)


async def test_is_shown_to_no_agent(office: Office) -> None:
    call_id = await end_call(office)

    call = (await office.get_call(call_id)).call

    assert (call.call_id, list(call.connections), call.connections_dropped) == (call_id, [], 0)


async def test_is_in_no_list_of_calls(office: Office) -> None:
    await end_call(office)
    office.caller = OPERATOR

    (call,) = (await office.broker.ListCalls(broker_pb2.ListCallsRequest(), Channel())).calls

    assert (list(call.connections), call.connections_dropped) == ([], 0)
