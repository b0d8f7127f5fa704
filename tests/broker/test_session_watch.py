"""A lost session: calls that have credentials are told and marked, none is started, and the audit says so."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from broker.errors import CallError
from broker.model import CallState, Mark
from broker.session_watch import REASON, SessionWatch
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, StoreError
from broker.trail import Trail
from broker.workflow_records import Imprint
from sandboxes.outcome import RawOutcome
from tests.broker.workshop import EMPTY, Workshop
from toolcrib.handler.v1 import handler_pb2


@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


class SlowTool:
    """Runs until it may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, _start: handler_pb2.Start) -> RawOutcome:
        await self.may_end.wait()
        return EMPTY


def watch(shop: Workshop) -> SessionWatch:
    made = SessionWatch(shop.store, lambda: datetime.now(UTC))
    made.running = shop.path
    return made


async def kinds(shop: Workshop) -> list[str]:
    return [json.loads(record.payload)["kind"] async for record in shop.store.audit_records()]


def runs(trail: Trail) -> bool:
    return trail.tell is not None and trail.ran


async def test_tells_and_marks_a_call_that_runs(shop: Workshop):
    shop.tool = tool = SlowTool()
    task, trail = await shop.begin(shop.draft(), runs)
    watch(shop).lost()
    assert (shop.cancelled, trail.marks) == ([REASON], [Mark.SESSION_LOST])
    tool.may_end.set()
    await task
    [call] = await shop.calls()
    assert (call.state, call.marks) == (CallState.SUCCEEDED, (Mark.SESSION_LOST,))


async def test_marks_a_call_once(shop: Workshop):
    shop.tool = tool = SlowTool()
    task, trail = await shop.begin(shop.draft(), runs)
    for _ in range(2):
        watch(shop).lost()
    assert trail.marks == [Mark.SESSION_LOST]
    tool.may_end.set()
    await task


async def test_starts_no_tool_whose_credentials_are_gone(shop: Workshop):
    async def lose() -> None:
        while not any(trail.leases for trail in shop.path.running):  # it is made while the call is minted
            await asyncio.sleep(0)
        watch(shop).lost()

    shop.engine.creating = lose
    with pytest.raises(CallError) as error:
        await shop.path.answer(shop.draft())
    assert (error.value.reason_name, shop.runs) == ("CREDENTIALS_UNAVAILABLE", 0)
    assert shop.is_clean()
    shop.engine.creating = None
    await shop.path.answer(shop.draft())  # the key was given back


async def test_tells_no_call_that_has_no_credentials_yet(shop: Workshop):
    told: list[int] = []

    async def lose() -> None:
        told.append(shop.path.tell_running(REASON))

    shop.vault.minting = lose
    await shop.path.answer(shop.draft())
    assert (told, shop.cancelled) == ([0], [])


async def test_tells_no_call_whose_answer_is_durable(shop: Workshop):
    told: list[int] = []

    async def lose() -> None:
        told.append(shop.path.tell_running(REASON))

    shop.vault.ending = lose
    await shop.path.answer(shop.draft())
    [call] = await shop.calls()
    assert (told, call.marks) == ([0], ())


async def test_writes_down_what_happened(shop: Workshop):
    watched = watch(shop)
    watched.lost()
    watched.opened()
    watched.supervisor_died("it died")
    await watched.close()
    assert (await kinds(shop))[-3:] == ["session.lost", "session.opened", "session.supervisor_replaced"]


class FullStore(MemoryStore):
    """Takes no event."""

    async def append_audit(self, event: AuditEvent, imprint: Imprint | None = None) -> None:
        raise StoreError("the disk is full")


async def test_goes_on_when_nothing_can_be_written(caplog):
    watched = SessionWatch(FullStore(), lambda: datetime.now(UTC))
    watched.lost()
    await watched.close()
    [record] = [record for record in caplog.records if record.message == "not in the audit"]
    assert record.cause == "session.lost: the disk is full"
