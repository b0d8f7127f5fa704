"""What a tool tells of its secret goes nowhere, on the whole way of a call, with a sandbox that is played.

Covered here: 50 canaries in every disguise, through each channel that a tool has at this level: the fields of
its result, its log (stdout and stderr come as one), the message and the code of its error. What a real
container adds (both streams, artefacts, progress, exit codes) is in tests/e2e/test_leaks.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from broker.cleaning import Cleaner
from broker.debts import Debts
from broker.errors import CallError, Failed
from broker.held_values import list_values
from broker.leaks import LeakAlarm
from broker.model import Answer, CallRecord, CallState, Mark
from broker.redaction import LONG_CHARACTERS, OFF_LOOP_CHARACTERS, off_loop
from broker.request import Request
from broker.stages.run import RawOutput
from broker.stages.sanitize import Sanitizer
from broker.store.records import AuditEvent, StoreError
from broker.trail import Trail
from credentials.errors import Cause, EndNotConfirmed
from credentials.lease import UsernamePassword
from credentials.secret import Secret
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxUnavailable
from tests.broker.bench import Bench
from tests.broker.disguises import DISGUISES
from tests.broker.test_held_values import contract, make
from tests.broker.test_redaction import make_lease
from tests.broker.workshop import FakeVault, Workshop
from toolcrib.handler.v1 import handler_pb2

CANARIES = [f"cAnary/{number:02}-+{secrets.token_urlsafe(12)}" for number in range(50)]
CREDENTIAL = "orders_read"


@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


def answering(outcome: RawOutcome) -> Callable[[handler_pb2.Start], Awaitable[RawOutcome]]:
    async def tool(_start: handler_pb2.Start) -> RawOutcome:
        return outcome

    return tool


def result_of(shop: Workshop, request: Request, log: str = "", **fields: Any) -> RawOutcome:
    """Say that the tool gave a result of the method's type."""
    version = shop.catalogue.resolve("shop", request.method, "")
    message = GetMessageClass(version.contracts[request.method].response_descriptor)(**fields)
    return RawOutcome(OutcomeKind.RESULT, message.SerializeToString(), log=log)


def failure_of(code: str = "X", message: str = "m", effect: int = handler_pb2.EFFECT_NONE) -> RawOutcome:
    failure = handler_pb2.Failure(code=code, message=message, effect=effect)  # type: ignore[arg-type]
    return RawOutcome(OutcomeKind.FAILURE, failure=failure)


def list_texts(thing: Any) -> Iterator[str]:
    """Give every text and all bytes that anything holds."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, bytes):
        yield thing.decode(errors="replace")
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from list_texts(getattr(thing, field.name))
    elif isinstance(thing, Mapping):
        yield from list_texts([*thing.keys(), *thing.values()])
    elif isinstance(thing, list | tuple | set | frozenset):
        for inner in thing:
            yield from list_texts(inner)


async def tell(shop: Workshop, request: Request, outcome: RawOutcome) -> list[str]:
    """Make a call whose tool does that, and give all that its caller sees."""
    shop.tool = answering(outcome)
    try:
        answer = await shop.path.answer(request)
    except CallError as error:
        return [*list_texts([error.message, error.details, error.violations])]
    message = GetMessageClass(answer.contract.response_descriptor).FromString(answer.result)
    return [value.text for value in list_values(message)]


async def list_kept(shop: Workshop) -> list[str]:
    """Give all that the store holds, opened."""
    opened = [await shop.store.get_call("shop", call.call_id) for call in await shop.calls()]
    return [*list_texts([shop.store.state.audit, shop.store.state.calls, opened])]


# --- the whole product -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("channels", ["result and log", "code and message"])
async def test_no_canary_reaches_agent_store_or_log(
    shop: Workshop, channels: str, name: str, caplog: pytest.LogCaptureFixture
):
    seen: list[str] = []
    for canary in CANARIES:
        shop.vault.password, hidden = canary, DISGUISES[name](canary)
        order = {"customer": {"name": f"a {hidden} b"}}
        result = result_of(shop, shop.lookup(), log=f"it says {hidden}\n", order=order)
        failure = failure_of(code=hidden, message=f"it says {hidden}")
        seen += await tell(shop, shop.lookup(), result if channels == "result and log" else failure)
    everything = "\n".join([*seen, *await list_kept(shop), caplog.text])
    assert not [canary for canary in CANARIES if DISGUISES[name](canary) in everything]
    assert everything.count("[redacted]") >= 2 * len(CANARIES)


async def test_a_canary_that_is_no_secret_reaches_everywhere(shop: Workshop):
    """The control: the search sees what leaves."""
    order = {"customer": {"name": CANARIES[0]}}
    seen = await tell(shop, shop.lookup(), result_of(shop, shop.lookup(), log=CANARIES[1], order=order))
    assert CANARIES[0] in seen
    assert CANARIES[1] in "\n".join(await list_kept(shop))


# --- what is done about it -------------------------------------------------------------------------------
LEAKS = {
    Mark.SECRET_IN_RESULT: lambda shop, secret: result_of(
        shop, shop.lookup(), order={"customer": {"name": secret}}
    ),
    Mark.SECRET_IN_LOG: lambda shop, secret: result_of(shop, shop.lookup(), log=secret),
    Mark.SECRET_IN_ERROR: lambda _shop, secret: failure_of(message=secret),
}


def events(shop: Workshop, kind: str = "secret.leaked") -> list[dict[str, Any]]:
    found = [json.loads(record.payload) for record in shop.store.state.audit]
    return [event for event in found if event["kind"] == kind]


async def read_call(shop: Workshop) -> CallRecord:
    """Read the only call."""
    (call,) = await shop.calls()
    found = await shop.store.get_call("shop", call.call_id)
    assert found is not None
    return found


@pytest.mark.parametrize("mark", LEAKS)
async def test_marks_the_call_and_tells_the_audit(shop: Workshop, mark: Mark):
    await tell(shop, shop.lookup(), LEAKS[mark](shop, shop.vault.password))
    call = await read_call(shop)
    (event,) = events(shop)
    assert call.marks == (mark,)
    assert event["call_id"] == call.call_id
    assert event["details"]["credential"] == CREDENTIAL
    assert event["details"]["channel"] == mark.value.removeprefix("SECRET_IN_").lower()


async def test_marks_each_channel_once(shop: Workshop):
    secret = shop.vault.password
    order = {"customer": {"name": secret, "customer_id": "c"}}
    await tell(shop, shop.lookup(), result_of(shop, shop.lookup(), log=f"{secret} {secret}", order=order))
    call = await read_call(shop)
    assert call.marks == (Mark.SECRET_IN_RESULT, Mark.SECRET_IN_LOG)
    assert [event["details"]["channel"] for event in events(shop)] == ["log", "result"]


async def test_marks_no_call_that_tells_nothing(shop: Workshop):
    order = {"customer": {"name": "v-user"}}  # a user name is no secret
    seen = await tell(shop, shop.lookup(), result_of(shop, shop.lookup(), log="v-user", order=order))
    call = await read_call(shop)
    assert (call.marks, call.tool_log, events(shop)) == ((), "[redacted]", [])
    assert "v-user" in seen


@pytest.mark.parametrize("leaks", [True, False])
async def test_ends_the_leases_of_a_leak_before_its_answer_is_recorded(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, leaks: bool
):
    live: list[set[str]] = []
    complete = shop.store.complete

    async def note(*arguments: Any, **options: Any) -> None:
        live.append(set(shop.vault.live))
        await complete(*arguments, **options)

    monkeypatch.setattr(shop.store, "complete", note)
    order = {"customer": {"name": shop.vault.password if leaks else "nobody"}}
    await tell(shop, shop.lookup(), result_of(shop, shop.lookup(), order=order))
    assert [bool(ids) for ids in live] == [not leaks]
    assert shop.is_clean()


async def test_ends_each_lease_once(shop: Workshop):
    ended: list[None] = []

    async def count() -> None:
        ended.append(None)

    shop.vault.ending = count
    secret = shop.vault.password
    await tell(
        shop, shop.lookup(), result_of(shop, shop.lookup(), secret, order={"customer": {"name": secret}})
    )
    assert len(ended) == 1


async def test_keeps_owing_a_leaked_lease_that_will_not_end(shop: Workshop):
    async def fail() -> None:
        raise EndNotConfirmed("l1", "it lives", Cause.BACKEND)

    shop.vault.ending = fail
    seen = await tell(shop, shop.lookup(), LEAKS[Mark.SECRET_IN_LOG](shop, shop.vault.password))
    call = await read_call(shop)
    assert (call.state, call.leases[0].confirmed_dead, shop.debts.count) == (CallState.SUCCEEDED, None, 1)
    assert seen == []
    await shop.debts.close()


async def test_answers_though_the_audit_takes_no_event(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    async def fail(_event: AuditEvent) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(shop.store, "append_audit", fail)
    seen = await tell(shop, shop.lookup(), LEAKS[Mark.SECRET_IN_RESULT](shop, shop.vault.password))
    call = await read_call(shop)
    assert (seen, call.marks) == (["[redacted]"], (Mark.SECRET_IN_RESULT,))
    assert events(shop, "call.succeeded")[0]["details"]["marks"] == ["SECRET_IN_RESULT"]


# --- writes ----------------------------------------------------------------------------------------------
async def test_a_write_whose_answer_was_redacted_has_succeeded(shop: Workshop):
    result = result_of(shop, shop.draft(), draft_id=shop.vault.password, order_id="A-1042")
    assert await tell(shop, shop.draft(), result) == ["[redacted]", "A-1042"]
    replayed: Answer = await shop.path.answer(shop.draft())
    assert replayed.replayed
    assert (await shop.states(), shop.runs) == ([CallState.SUCCEEDED], 1)
    assert shop.vault.password not in str(replayed.result)


async def test_a_write_that_is_nothing_without_the_secret_was_applied(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("broker.held_values.REDACTED", "[redacted]" * 7)  # longer than an id may be
    shop.tool = answering(result_of(shop, shop.draft(), draft_id=shop.vault.password))
    with pytest.raises(Failed) as error:
        await shop.path.answer(shop.draft())
    call = await read_call(shop)
    assert (error.value.reason_name, error.value.details) == ("SECRET_IN_RESULT", {"effect": "APPLIED"})
    assert (call.state, call.marks, shop.is_clean()) == (CallState.FAILED, (Mark.SECRET_IN_RESULT,), True)


async def test_a_doubtful_error_keeps_its_secret_too(shop: Workshop):
    unknown = failure_of(message=shop.vault.password, effect=handler_pb2.EFFECT_UNKNOWN)
    seen = await tell(shop, shop.draft(), unknown)
    call = await read_call(shop)
    assert (call.state, call.marks) == (CallState.IN_DOUBT, (Mark.SECRET_IN_ERROR,))
    assert not [text for text in [*seen, *await list_kept(shop)] if shop.vault.password in text]


# --- errors ----------------------------------------------------------------------------------------------
async def test_finds_a_secret_that_lies_across_code_and_message(shop: Workshop):
    secret = shop.vault.password
    seen = await tell(shop, shop.lookup(), failure_of(code=secret[:9], message=secret[9:]))
    assert "[redacted]: [redacted]" in seen
    assert (await read_call(shop)).marks == (Mark.SECRET_IN_ERROR,)


@pytest.mark.parametrize("place", [60, 995])
async def test_cuts_no_secret_in_two(shop: Workshop, place: int):
    text = "x" * place + shop.vault.password
    seen = await tell(shop, shop.lookup(), failure_of(code=text, message=text))
    assert not [text for text in seen if "pa55" in text]


async def test_tells_of_a_lost_sandbox_without_secrets(shop: Workshop, caplog: pytest.LogCaptureFixture):
    async def lose(_start: handler_pb2.Start) -> RawOutcome:
        raise SandboxUnavailable(f"it said {shop.vault.password}")

    shop.tool = lose
    with pytest.raises(Failed) as error:
        await shop.path.answer(shop.lookup())
    assert "it said [redacted]" in error.value.message
    assert shop.vault.password not in caplog.text


@pytest.mark.parametrize("kind", [OutcomeKind.CRASHED, OutcomeKind.TIMED_OUT, OutcomeKind.OUTPUT_TOO_LARGE])
async def test_cleans_the_log_of_a_call_that_crashed(shop: Workshop, kind: OutcomeKind):
    secret = shop.vault.password
    seen = await tell(shop, shop.lookup(), RawOutcome(kind, log=f"a {secret}", detail=f"said {secret}"))
    call = await read_call(shop)
    cut = (Mark.TRUNCATED,) if kind is OutcomeKind.OUTPUT_TOO_LARGE else ()
    assert (call.tool_log, call.marks) == ("a [redacted]", (Mark.SECRET_IN_LOG, *cut))
    assert not [text for text in seen if secret in text]


# --- sanitize by itself ----------------------------------------------------------------------------------
SECRET = "s3cret-word-of-the-call"


async def sanitize(raw: bytes, secret: str = SECRET) -> tuple[Answer | Failed, Trail]:
    """Sanitize a write's result that has fields of every kind."""
    bench = await Bench.make()
    call, trail = await bench.make_call()
    alarm = LeakAlarm(bench.store, Debts(FakeVault(), bench.store))
    lease = make_lease(UsernamePassword("v", Secret(secret)))
    try:
        output = RawOutput(raw)
        return await Sanitizer(alarm, Cleaner())(
            replace(call, contract=contract()), output, [lease], trail
        ), trail
    except Failed as error:
        return error, trail


async def test_refuses_a_number_that_holds_a_secret():
    error, trail = await sanitize(make(number="123456789012345678").SerializeToString(), "123456789012345678")
    assert isinstance(error, Failed)
    assert (error.reason_name, trail.marks) == ("SECRET_IN_RESULT", [Mark.SECRET_IN_RESULT])


async def test_names_no_key_of_a_map_that_holds_a_secret():
    raw = make(named={SECRET: {"text": "a"}}).SerializeToString() + b"\x3a\x02\x0a\x00"
    deep = make(named={SECRET: {"inner": {}}})
    deep.named[SECRET].inner.MergeFromString(b"\xf8\x07\x01")  # a field that nobody knows
    for result in (raw, deep.SerializeToString()):
        error, _ = await sanitize(result)
        assert SECRET not in str(error)
    assert isinstance(error, Failed)
    assert "named" in error.message


async def test_searches_what_is_long_in_a_thread():
    places = [await off_loop(size, threading.get_ident) for size in (0, OFF_LOOP_CHARACTERS)]
    assert [place == threading.get_ident() for place in places] == [True, False]


async def test_goes_on_with_other_calls_while_a_large_result_is_searched():
    raw = make(lines=["%41\\u0041 "] * 200_000, more=SECRET).SerializeToString()
    searching = asyncio.create_task(sanitize(raw))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0.001)
        turns += 1
    answer, _ = await searching
    assert isinstance(answer, Answer)
    assert turns > 10


async def test_goes_on_with_other_calls_while_a_result_of_many_messages_is_read():
    raw = make(inners=[{"id": 1}] * 100_000).SerializeToString()
    reading = asyncio.create_task(sanitize(raw))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    await reading
    assert turns > 5


async def test_keeps_no_short_result_waiting_for_many_long_ones():
    go_on = threading.Event()
    long = [asyncio.create_task(off_loop(LONG_CHARACTERS, go_on.wait)) for _ in range(40)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await off_loop(OFF_LOOP_CHARACTERS, lambda: "done") == "done"
    go_on.set()
    assert all(await asyncio.gather(*long))
