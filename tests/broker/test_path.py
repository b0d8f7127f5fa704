"""A call that goes wrong, is given up or attacked at any line: what is told, kept, and run again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.errors import CallError, Failed
from broker.model import CallState, Role
from broker.settings import Tenant
from broker.stages import reserve
from broker.store.records import AuditEvent
from broker.trail import MAX_MESSAGE, MAX_METHOD
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxUnavailable
from tests.broker.workshop import DESK, EMPTY, Workshop
from toolcrib.handler.v1 import handler_pb2


@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


async def refused_with(shop: Workshop, request: object) -> CallError:
    with pytest.raises(CallError) as error:
        await shop.path.answer(request)  # type: ignore[arg-type]
    return error.value


async def wait_until(shop: Workshop, state: CallState) -> None:
    async with asyncio.timeout(10):
        while state not in await shop.states():
            await asyncio.sleep(0.02)


# --- who asks --------------------------------------------------------------------------------------------
async def test_gives_an_agents_answer_to_no_person_of_the_same_name(shop: Workshop):
    await shop.path.answer(shop.draft())
    shop.caller = replace(DESK, role=Role.AUTHOR)
    assert (await refused_with(shop, shop.draft())).reason_name == "ROLE_REQUIRED"


async def test_gives_one_subjects_answer_to_no_other(shop: Workshop):
    shop.caller = replace(DESK, subject="maria")
    await shop.path.answer(shop.draft())
    shop.caller = replace(DESK, subject="mallory")
    assert (await refused_with(shop, shop.draft())).reason_name == "KEY_REUSED"
    assert shop.runs == 1


async def test_says_to_who_gives_credentials_on_whose_behalf_it_is(shop: Workshop):
    tags = []
    mint = shop.vault.mint

    async def note(tag, wanted, ttl_seconds):
        tags.append(tag)
        return await mint(tag, wanted, ttl_seconds)

    shop.vault.mint = note  # type: ignore[method-assign]
    shop.caller = replace(DESK, subject="maria")
    await shop.path.answer(shop.draft())
    assert [(tag.subject, tag.agent, tag.tenant) for tag in tags] == [("maria", DESK.name, DESK.tenant)]


@pytest.mark.parametrize(
    "limits", [{"targets": ("rivals-*",)}, {"vault_roles": ("rival-*",)}, {"targets": ()}]
)
async def test_uses_nothing_that_the_operator_gave_to_another_tenant(
    shop: Workshop, limits: dict[str, tuple[str, ...]]
):
    shop.tenants["shop"] = Tenant(**limits)
    error = await refused_with(shop, shop.draft())
    assert (error.reason_name, shop.runs) == ("NOT_GRANTED", 0)


# --- what is asked ---------------------------------------------------------------------------------------
async def test_runs_nothing_for_metadata_that_it_does_not_know(shop: Workshop):
    error = await refused_with(shop, shop.draft(**{"toolcrib-dry-run": "true"}))
    assert error.reason_name == "METADATA_INVALID"
    assert [violation.field for violation in error.violations] == ["toolcrib-dry-run"]


async def test_counts_the_name_of_the_tool_to_the_size_of_the_request(shop: Workshop):
    request = replace(shop.draft(), method="x" * 1_000_000)
    assert (await refused_with(shop, request)).reason_name == "REQUEST_TOO_LARGE"


@pytest.mark.parametrize("method", ["x" * 10_000, "a/b/c", "", "/", "shop.v1.Orders/Look\nup", "é/x"])
async def test_keeps_little_of_a_name_that_is_no_tools(shop: Workshop, method: str):
    error = await refused_with(shop, replace(shop.draft(), method=method))
    (call,) = await shop.calls()
    assert error.reason_name == "TOOL_UNKNOWN"
    assert len(call.method) <= MAX_METHOD
    assert len(call.message) <= MAX_MESSAGE


# --- what goes wrong -------------------------------------------------------------------------------------
async def test_records_a_fault_of_its_own_too(shop: Workshop):
    async def fail(_stage: str, _call_id: str) -> None:
        raise ZeroDivisionError

    trail = shop.path.begin(shop.draft())
    trail.caller, trail._boundary = DESK, fail
    with pytest.raises(ZeroDivisionError):
        await shop.path.answer(shop.draft(), trail)
    assert await shop.states() == [CallState.REFUSED]


async def test_runs_no_write_twice_when_the_sandbox_is_lost_under_it(shop: Workshop):
    async def lose(_start: handler_pb2.Start) -> RawOutcome:
        raise SandboxUnavailable("the engine is gone")

    shop.tool = lose
    assert (await refused_with(shop, shop.draft())).reason_name == "IN_DOUBT"
    assert (await refused_with(shop, shop.draft())).reason_name == "IN_DOUBT"
    assert shop.runs == 1


async def test_keeps_an_answer_when_the_sandbox_ends_badly(shop: Workshop):
    shop.engine.ending = SandboxUnavailable("it does not go away")
    await shop.path.answer(shop.draft())
    assert await shop.states() == [CallState.SUCCEEDED]


async def test_starts_no_write_that_has_no_time_left(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("broker.stages.run.MIN_RUN_SECONDS", 1_000.0)
    error = await refused_with(shop, shop.draft())
    assert (error.reason_name, shop.runs) == ("DEADLINE_EXCEEDED", 0)
    monkeypatch.undo()
    assert not (await shop.path.answer(shop.draft())).replayed


async def test_tells_of_a_tools_failure_without_what_cannot_be_seen(shop: Workshop):
    hidden = "pa55word-of\u200b-this-call\u202e"

    async def fail(_start: handler_pb2.Start) -> RawOutcome:
        failure = handler_pb2.Failure(code="X", message=hidden, effect=handler_pb2.EFFECT_NONE)
        return RawOutcome(OutcomeKind.FAILURE, failure=failure)

    shop.tool = fail
    error = await refused_with(shop, shop.lookup())
    assert error.message == "X: [redacted]"


# --- the disk --------------------------------------------------------------------------------------------
async def test_gives_everything_back_when_the_intent_cannot_be_written(shop: Workshop):
    shop.store.failures["dispatch"] = 1
    error = await refused_with(shop, shop.draft())
    assert (error.reason_name, shop.runs) == ("RECORD_UNAVAILABLE", 0)
    assert not (await shop.path.answer(shop.draft())).replayed


async def test_keeps_the_answer_of_a_write_while_the_disk_is_full(shop: Workshop):
    shop.store.failures["complete"] = 3
    assert (await refused_with(shop, shop.draft())).reason_name == "RECORD_UNAVAILABLE"
    await wait_until(shop, CallState.SUCCEEDED)
    assert (await shop.path.answer(shop.draft())).replayed
    assert shop.runs == 1


async def test_writes_an_end_down_later_when_the_disk_was_full(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reserve, "FIRST_PAUSE_SECONDS", 0.01)
    shop.store.failures |= {"dispatch": 1, "give_back": 3}
    assert (await refused_with(shop, shop.draft())).reason_name == "RECORD_UNAVAILABLE"
    await wait_until(shop, CallState.FAILED)
    assert not (await shop.path.answer(shop.draft())).replayed


async def test_tells_an_answer_whose_record_only_lacks_its_times(shop: Workshop):
    shop.store.failures["amend"] = 1
    await shop.path.answer(shop.draft())
    assert await shop.states() == [CallState.SUCCEEDED]


# --- Vault -----------------------------------------------------------------------------------------------
async def test_answers_although_the_end_of_a_lease_goes_wrong(shop: Workshop):
    async def fail() -> None:
        raise RuntimeError("what nobody thought of")

    shop.vault.ending = fail
    await shop.path.answer(shop.draft())
    assert shop.debts.count == 1
    shop.vault.ending = None
    await shop.debts.close()
    assert shop.is_clean()


# --- versions --------------------------------------------------------------------------------------------
async def withdraw(shop: Workshop) -> None:
    row = await shop.store.get_version("shop", "shop", "1.0.0")
    assert row is not None
    event = AuditEvent("test", "shop", "", datetime.now(UTC))
    await shop.store.review_version(replace(row, state="REJECTED"), event)
    await shop.catalogue.refresh("shop")


async def test_replays_what_a_withdrawn_version_did(shop: Workshop):
    await shop.path.answer(shop.draft())
    await withdraw(shop)
    assert (await shop.path.answer(shop.draft())).replayed


async def test_runs_no_withdrawn_version_for_a_key_that_was_given_back_meanwhile(shop: Workshop):
    await shop.path.answer(shop.draft())
    await withdraw(shop)
    request = shop.draft()
    claim = shop.store.claim

    async def free_first(scope, *arguments):
        key, holder = shop.store.state.keys[scope]
        shop.store.state.keys[scope] = replace(key, free=True), holder
        return await claim(scope, *arguments)

    shop.store.claim = free_first  # type: ignore[method-assign]
    assert (await refused_with(shop, request)).reason_name == "TOOL_NOT_USABLE"
    assert shop.runs == 1


# --- reads under a key -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [OutcomeKind.TIMED_OUT, OutcomeKind.CRASHED, OutcomeKind.OUTPUT_TOO_LARGE])
async def test_gives_a_read_that_failed_in_passing_a_new_attempt(shop: Workshop, kind: OutcomeKind):
    async def fail(_start: handler_pb2.Start) -> RawOutcome:
        return RawOutcome(kind)

    shop.tool = fail
    await refused_with(shop, shop.lookup("k1"))
    shop.tool = shop.answer_nothing
    assert not (await shop.path.answer(shop.lookup("k1"))).replayed


async def test_gives_a_read_whose_client_hung_up_a_new_attempt(shop: Workshop):
    await hang_up_while_running(shop, shop.lookup("k1"))
    shop.tool = shop.answer_nothing
    assert not (await shop.path.answer(shop.lookup("k1"))).replayed


# --- a client that hangs up, a broker that stops ---------------------------------------------------------
async def hang_up_while_running(shop: Workshop, request: object) -> asyncio.Event:
    go_on = asyncio.Event()

    async def wait(_start: handler_pb2.Start) -> RawOutcome:
        await go_on.wait()
        return EMPTY

    shop.tool = wait
    task, _ = await shop.begin(request, lambda trail: shop.runs > 0)  # type: ignore[arg-type]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return go_on


async def test_ends_a_write_whose_client_hung_up(shop: Workshop):
    go_on = await hang_up_while_running(shop, shop.draft())
    go_on.set()
    await wait_until(shop, CallState.SUCCEEDED)


async def test_loses_nothing_wherever_a_client_hangs_up(shop: Workshop):
    replayed = []
    for steps in range(60):
        task = asyncio.create_task(shop.path.answer(shop.draft(f"k{steps}")))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await shop.path.drain(5)
        shop.path.draining = False
        assert shop.is_clean()
        replayed.append((await shop.path.answer(shop.draft(f"k{steps}"))).replayed)
    assert shop.runs == 60
    assert {True, False} == set(replayed)


async def test_tells_who_waits_that_the_broker_shuts_down(shop: Workshop):
    async def wait() -> None:
        await asyncio.sleep(60)

    shop.vault.minting = wait
    task, _ = await shop.begin(shop.draft(), lambda trail: trail.recorded)
    await shop.path.drain(0)
    with pytest.raises(CallError) as error:
        await task
    assert error.value.reason_name == "DRAINING"
    assert await shop.states() == [CallState.FAILED]


async def test_tells_that_a_write_which_the_drain_stopped_is_in_doubt(shop: Workshop):
    async def wait(_start: handler_pb2.Start) -> RawOutcome:
        await asyncio.sleep(60)
        return EMPTY

    shop.tool = wait
    task, _ = await shop.begin(shop.draft(), lambda trail: shop.runs > 0)
    await shop.path.drain(0)
    with pytest.raises(Failed) as error:
        await task
    assert error.value.reason_name == "IN_DOUBT"
    assert await shop.states() == [CallState.IN_DOUBT]
    assert shop.is_clean()
