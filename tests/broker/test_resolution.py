"""Calls in doubt: fenced first, then asked about; a part that is missing is waited for, nonsense is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.doubts import Doubts
from broker.errors import CallError
from broker.fence import Fence, NotFenced
from broker.finding import RESOLVER
from broker.inquiry import Inquirer
from broker.keys import TenantKeys
from broker.model import Brake, BrakeKind, CallRecord, CallState, Mark
from broker.policy.files import digest_files
from broker.recovery import adopt_unfinished
from broker.request import Peer, Request
from broker.resolution import Resolution, Tuning
from broker.store.records import AuditEvent, GrantFiles, StaleEpoch
from credentials.errors import Cause, CredentialsUnavailable
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxUnavailable
from tests.broker.bench import METHOD as DRAFT
from tests.broker.workshop import GRANTS, Workshop
from toolcrib.handler.v1 import handler_pb2

REFUND, LOOKUP = "shop.v1.Orders/IssueRefund", "shop.v1.Orders/LookupRefund"
REFUND_JSON = b'{"orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}}'
LOST = RawOutcome(OutcomeKind.CRASHED)
FOUND = RawOutcome(OutcomeKind.RESULT, response=b"\x08\x01\x12\x05\x0a\x03R-7")  # issued, refund_id "R-7"
NOT_FOUND = RawOutcome(OutcomeKind.RESULT)
NONSENSE = RawOutcome(OutcomeKind.RESULT, response=b"\xff")


class Quick(Inquirer):
    """Does not wait for a target that a test has none of."""

    def settle_seconds(self, call: CallRecord) -> float:
        return 0.0


class FakeDriver:
    """Ends containers as a test wants, and notes in which order things came."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.failures: list[Exception | bool] = []

    async def reap(self) -> list[str]:
        return []

    async def end_container(self, container_id: str) -> bool:
        self.order.append(f"end {container_id}")
        outcome = self.failures.pop(0) if self.failures else True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Lab:
    """A workshop whose tool loses its answers, with a resolution."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.driver, self.doubts = shop, FakeDriver(), Doubts()
        self.remains: list[str] = []
        self.answers = {REFUND: LOST, DRAFT: LOST, LOOKUP: FOUND}
        shop.tool = self.run
        fence = Fence(self.driver, shop.debts, self.end_remains, shop.store.epoch.number)  # type: ignore[arg-type]
        inquirer = Quick(shop.path, shop.catalogue, shop.grants, TenantKeys(b"k" * 32))
        self.tuning = Tuning(
            look_seconds=0.01, first_pause_seconds=0.001, longest_pause_seconds=0.002, max_tries=3
        )
        self.resolution = Resolution(shop.store, self.doubts, fence, inquirer, shop.brakes, self.tuning)

    async def run(self, start: handler_pb2.Start) -> RawOutcome:
        self.driver.order.append(f"run {start.method.rpartition('/')[2]} {start.context.attempt}")
        return self.answers[start.method]

    async def end_remains(self) -> list[str]:
        return self.remains

    def request(self, method: str = REFUND) -> Request:
        raw = REFUND_JSON if method == REFUND else REFUND_JSON[:-1] + b', "comment": "broken"}'
        return Request(
            Peer(b""), method, raw, math.inf, is_json=True, metadata={"toolcrib-idempotency-key": "k1"}
        )

    async def lose(self, method: str = REFUND) -> CallRecord:
        """Leave a call in doubt."""
        with pytest.raises(CallError) as error:
            await self.shop.path.answer(self.request(method))
        assert error.value.reason_name == "IN_DOUBT"
        return (await self.shop.store.in_doubt())[0]

    async def wait_for(self, call: CallRecord, *states: CallState) -> CallRecord:
        async with asyncio.timeout(5):
            while True:
                found = await self.shop.store.get_call("shop", call.call_id)
                assert found is not None
                if found.state in states:
                    return found
                await asyncio.sleep(0.005)

    async def resolve(self, method: str = REFUND) -> CallRecord:
        """Lose a call and let it be resolved."""
        call = await self.lose(method)
        self.resolution.start()
        return await self.wait_for(call, CallState.SUCCEEDED, CallState.FAILED, CallState.NEEDS_HUMAN)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    shop = await Workshop.open()
    more = GRANTS.replace('@id("all")', '@id("more")').replace("CreateRefundDraft", "IssueRefund")
    files = {"a.cedar": GRANTS, "b.cedar": more}
    held = await shop.store.grant_files("shop")
    event = AuditEvent("test", "shop", "", datetime.now(UTC))
    await shop.store.apply_grants("shop", GrantFiles(files, digest_files(files)), held.digest, event)
    await shop.grants.refresh("shop")
    lab = Lab(shop)
    yield lab
    await lab.resolution.close()


# --- the order -------------------------------------------------------------------------------------------
async def test_ends_the_sandbox_before_it_asks(lab: Lab):
    await lab.resolve()
    assert lab.driver.order == ["run IssueRefund 1", "end fake", "run LookupRefund 1"]


async def test_asks_nothing_while_the_sandbox_may_live(lab: Lab):
    lab.driver.failures = [False, SandboxUnavailable("the engine is gone"), True]
    await lab.resolve()
    assert lab.driver.order[-2:] == ["end fake", "run LookupRefund 1"]
    assert lab.driver.order.count("run LookupRefund 1") == 1


async def test_asks_nothing_while_a_login_may_live(lab: Lab):
    async def fail() -> None:
        raise RuntimeError("Vault does not answer")

    lab.shop.vault.ending = fail
    call = await lab.lose()
    with pytest.raises(NotFenced, match="login"):
        await lab.resolution.fence(call)
    lab.shop.vault.ending = None
    assert (await lab.resolution.fence(call)).call_id == call.call_id
    await lab.shop.debts.close()


async def test_asks_nothing_while_an_older_brokers_way_out_may_live(lab: Lab):
    call = replace(await lab.lose(), epoch=0)
    lab.remains = ["run/old-1"]
    with pytest.raises(NotFenced, match="run/old-1"):
        await lab.resolution.fence(call)


async def test_waits_as_long_as_the_manifest_says(lab: Lab):
    call = await lab.lose()
    inquirer = Inquirer(lab.shop.path, lab.shop.catalogue, lab.shop.grants, TenantKeys(b"k" * 32))
    assert inquirer.settle_seconds(call) == 5


# --- what is found ---------------------------------------------------------------------------------------
async def test_keeps_the_answer_that_the_probe_found(lab: Lab):
    found = await lab.resolve()
    assert (found.state, found.result) == (CallState.SUCCEEDED, b"\x0a\x03R-7")
    assert (await lab.shop.path.answer(lab.request())).replayed


async def test_asks_a_probe_on_behalf_of_the_same_subject(lab: Lab):
    seen = []

    async def run(start: handler_pb2.Start) -> RawOutcome:
        seen.append((start.method, start.context.subject))
        return await lab.run(start)

    lab.shop.caller, lab.shop.tool = replace(lab.shop.caller, subject="maria"), run
    await lab.resolve()
    assert seen == [(REFUND, "maria"), (LOOKUP, "maria")]
    assert {(one.method, one.agent, one.subject) for one in await lab.shop.calls()} == {
        (REFUND, "refund-desk", "maria"),
        (LOOKUP, RESOLVER, "maria"),
    }


async def test_frees_the_key_of_what_did_not_happen(lab: Lab):
    lab.answers[LOOKUP] = NOT_FOUND
    assert (await lab.resolve()).state is CallState.FAILED
    lab.answers[REFUND] = RawOutcome(OutcomeKind.RESULT)
    assert not (await lab.shop.path.answer(lab.request())).replayed
    assert lab.driver.order[-1] == "run IssueRefund 2"


async def test_sends_again_under_the_next_attempt(lab: Lab):
    call = await lab.lose(DRAFT)
    lab.answers[DRAFT] = RawOutcome(OutcomeKind.RESULT)
    lab.resolution.start()
    found = await lab.wait_for(call, CallState.SUCCEEDED)
    assert lab.driver.order[-1] == "run CreateRefundDraft 2"
    assert found.attempt == 2


async def test_tells_a_retry_what_was_found_as_soon_as_it_is(lab: Lab):
    await lab.lose()
    lab.shop.path._stages.claim._doubts = lab.doubts
    lab.driver.failures = []
    lab.resolution.start()
    while not lab.doubts.count:
        await asyncio.sleep(0)
    assert (await lab.shop.path.answer(lab.request())).replayed


# --- what cannot be found out ----------------------------------------------------------------------------
async def test_asks_a_person_after_enough_nonsense(lab: Lab):
    lab.answers[LOOKUP] = NONSENSE
    assert (await lab.resolve()).state is CallState.NEEDS_HUMAN
    assert lab.driver.order.count("run LookupRefund 1") == 3


async def test_asks_a_person_what_became_of_what_was_sent_again_in_vain(lab: Lab):
    found = await lab.resolve(DRAFT)
    assert found.state is CallState.NEEDS_HUMAN
    assert not await lab.shop.store.in_doubt()  # what was sent again is no doubt of its own


async def test_waits_for_vault_as_long_as_it_takes(lab: Lab):
    tries = 0

    async def refuse() -> None:
        nonlocal tries
        tries += 1
        if 1 < tries < 10:
            raise CredentialsUnavailable("sealed", Cause.SEALED)

    lab.shop.vault.minting = refuse
    assert (await lab.resolve()).state is CallState.SUCCEEDED


async def test_asks_a_person_when_the_login_is_refused_for_good(lab: Lab):
    tries = 0

    async def refuse() -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            raise CredentialsUnavailable("invalid_grant", Cause.REFUSED)

    lab.shop.vault.minting = refuse
    assert (await lab.resolve()).state is CallState.NEEDS_HUMAN
    assert tries == 1 + lab.tuning.max_tries


async def test_stops_when_another_broker_has_taken_over(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    async def refuse(*_: object) -> None:
        raise StaleEpoch("taken over")

    call = await lab.lose()
    monkeypatch.setattr(lab.shop.store, "resolve", refuse)
    lab.resolution.start()
    while "run LookupRefund 1" not in lab.driver.order or lab.doubts.count:
        await asyncio.sleep(0.001)
    found = await lab.shop.store.get_call("shop", call.call_id)
    assert found is not None
    assert found.state is CallState.IN_DOUBT


# --- what an operator holds back -------------------------------------------------------------------------
def make_brake(kind: BrakeKind, value: str) -> Brake:
    return Brake("b1", kind, "shop", value, "drill", "", datetime.now(UTC))


async def ask_under(lab: Lab, brake: Brake, method: str = REFUND) -> CallRecord:
    """Lose a call, hold something back, and give the resolution time to find it out all the same."""
    call = await lab.lose(method)
    lab.shop.brakes.put(brake)
    lab.resolution.start()
    await asyncio.sleep(0.1)
    found = await lab.shop.store.get_call("shop", call.call_id)
    assert found is not None
    return found


async def test_fences_what_is_held_back_and_asks_when_it_is_let_go(lab: Lab):
    brake = make_brake(BrakeKind.TOOL, "shop.v1.Orders")
    call = await ask_under(lab, brake)
    assert (call.state, lab.driver.order[1:]) == (CallState.IN_DOUBT, ["end fake"])
    lab.shop.brakes.take(brake)
    await lab.wait_for(call, CallState.SUCCEEDED)


async def test_asks_no_probe_that_is_held_back_itself(lab: Lab):
    brake = make_brake(BrakeKind.TOOL, LOOKUP)
    call = await ask_under(lab, brake)
    assert (call.state, lab.driver.order[1:]) == (CallState.IN_DOUBT, ["end fake"])
    lab.shop.brakes.take(brake)
    await lab.wait_for(call, CallState.SUCCEEDED)


async def test_asks_what_a_blocked_agent_did(lab: Lab):
    assert (await ask_under(lab, make_brake(BrakeKind.AGENT, "refund-desk"))).state is CallState.SUCCEEDED


async def test_sends_nothing_again_for_a_blocked_agent(lab: Lab):
    lab.answers[DRAFT] = LOST
    call = await ask_under(lab, make_brake(BrakeKind.AGENT, "refund-desk"), DRAFT)
    assert (call.state, lab.driver.order[1:]) == (CallState.IN_DOUBT, ["end fake"])


async def test_hands_what_an_operator_stopped_to_a_person_and_never_sends_it_again(lab: Lab):
    call = await lab.lose(DRAFT)
    await lab.shop.store.amend(replace(call, marks=(Mark.STOPPED,)))
    lab.resolution.start()
    await lab.wait_for(call, CallState.NEEDS_HUMAN)
    assert lab.driver.order[1:] == ["end fake"]


async def test_stops_a_probe_and_asks_again_later(lab: Lab):
    asked, go_on = asyncio.Event(), asyncio.Event()
    run = lab.shop.tool

    async def stall(start: handler_pb2.Start) -> RawOutcome:
        if start.method == LOOKUP and not asked.is_set():
            asked.set()
            await go_on.wait()
        return await run(start)

    call, lab.shop.tool = await lab.lose(), stall
    lab.resolution.start()
    await asked.wait()
    brake = make_brake(BrakeKind.TENANT, "")
    lab.shop.brakes.put(brake)
    await asyncio.wait(lab.shop.path.stop(brake))
    assert not lab.shop.vault.live
    lab.shop.brakes.take(brake)
    await lab.wait_for(call, CallState.SUCCEEDED)


# --- a broker that starts again --------------------------------------------------------------------------
async def test_adopts_what_was_being_sent_again_as_no_doubt_of_its_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    call = await lab.lose(DRAFT)
    sent = replace(call, call_id="c-again", key="", state=CallState.DISPATCHED)
    adopted: list[CallRecord] = []

    async def unfinished() -> list[CallRecord]:
        return [sent]

    async def adopt(record: CallRecord, _event: AuditEvent) -> None:
        adopted.append(record)

    monkeypatch.setattr(lab.shop.store, "unfinished", unfinished)
    monkeypatch.setattr(lab.shop.store, "adopt", adopt)
    await adopt_unfinished(lab.shop.store, lab.shop.brakes)
    assert [record.state for record in adopted] == [CallState.FAILED]


@pytest.mark.parametrize("kind", [BrakeKind.AGENT, BrakeKind.TOOL])
async def test_marks_what_a_brake_would_have_stopped_had_the_broker_not_ended(
    lab: Lab, kind: BrakeKind, monkeypatch: pytest.MonkeyPatch
):
    lost = replace(await lab.lose(DRAFT), state=CallState.DISPATCHED)
    adopted: list[CallRecord] = []

    async def unfinished() -> list[CallRecord]:
        return [lost]

    async def adopt(record: CallRecord, _event: AuditEvent) -> None:
        adopted.append(record)

    monkeypatch.setattr(lab.shop.store, "unfinished", unfinished)
    monkeypatch.setattr(lab.shop.store, "adopt", adopt)
    await adopt_unfinished(lab.shop.store, lab.shop.brakes)
    lab.shop.brakes.put(make_brake(kind, lost.agent if kind is BrakeKind.AGENT else lost.method))
    await adopt_unfinished(lab.shop.store, lab.shop.brakes)
    assert [record.marks for record in adopted] == [(), (Mark.STOPPED,)]
