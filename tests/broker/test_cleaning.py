"""Cleaning of results on the path of a call: what is taken out, what is said of it, what is refused."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.cleaning import MAX_IDLE_TENANTS, Cleaner, NotCleaned
from broker.debts import Debts
from broker.errors import Failed
from broker.leaks import LeakAlarm
from broker.model import Answer, CallState
from broker.stages.run import RawOutput
from broker.stages.sanitize import Sanitizer
from credentials.lease import UsernamePassword
from credentials.secret import Secret
from tests.broker.bench import Bench
from tests.broker.test_leaks import answering, result_of
from tests.broker.test_redaction import make_lease
from tests.broker.workshop import FakeVault, Workshop
from tests.tools.protos import load_contract

CONTRACT = load_contract(
    """
message Page {
  string html = 1 [(toolcrib.v1.field) = {untrusted: true, content: HTML}];
  string markdown = 2 [(toolcrib.v1.field) = {untrusted: true, content: MARKDOWN}];
  string json = 3 [(toolcrib.v1.field) = {untrusted: true, content: JSON}];
  string plain = 4 [(toolcrib.v1.field).untrusted = true];
  string trusted = 5;
  bytes raw = 6;
  repeated string lines = 7 [(toolcrib.v1.field) = {untrusted: true, content: HTML}];
  string long = 8 [(toolcrib.v1.field).untrusted = true, (buf.validate.field).string.min_len = 3,
                   (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
}
message Response { Page page = 1; map<string, Page> pages = 2; }
"""
)


def count_starts(cleaner: Cleaner, tenant: str = "") -> tuple[int, int]:
    short, long = (cleaner.find_worker(tenant, is_long=is_long) for is_long in (False, True))
    return short.starts, long.starts


@pytest.fixture
async def cleaner() -> AsyncIterator[Cleaner]:
    made = Cleaner()
    yield made
    await made.close()


def make(**document: Any) -> Message:
    return ParseDict(document, GetMessageClass(CONTRACT.response_descriptor)())


async def clean(cleaner: Cleaner, **page: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    cleaned, report = await cleaner.clean(CONTRACT, make(page=page), {"https://docs.example"})
    return MessageToDict(cleaned)["page"], report


async def test_cleans_each_field_by_its_format(cleaner: Cleaner) -> None:
    page, report = await clean(
        cleaner,
        html="<p hidden>evil</p>a<b>b</b>",
        markdown="![x](y) [z](https://docs.example/q) [w](https://x.example)",
        json='{"a\\u200b": 1}',
        plain="if a<b && c>d\u202e",
        trusted="\u202e<b>",
        raw="4oCuPGI+",
        lines=["<i>x</i>", "<p hidden>evil</p>y"],
    )

    assert page == {
        "html": "ab", "markdown": "[z](https://docs.example/q) w", "json": '{"a":1}',
        "plain": "if a<b && c>d",
        "trusted": "\u202e<b>", "raw": "4oCuPGI+", "lines": ["x", "y"],
    }  # fmt: skip
    assert report == (
        "page.html: 1 hidden", "page.markdown: 1 image, 1 link target", "page.json: 1 invisible",
        "page.plain: 1 bidirectional", "page.lines[]: 1 hidden",
    )  # fmt: skip


async def test_starts_no_process_for_text_and_short_json(cleaner: Cleaner) -> None:
    await clean(cleaner, plain="a\u200b", json="[1, 2]")

    assert count_starts(cleaner) == (0, 0)


async def test_keeps_short_content_from_waiting_for_long_content(cleaner: Cleaner) -> None:
    await clean(cleaner, html="<p>a")
    await clean(cleaner, html="<p>" + "a " * 40_000)

    assert count_starts(cleaner) == (1, 1)


async def test_tells_no_key_of_a_map_in_the_report(cleaner: Cleaner) -> None:
    result = make(pages={"s3cret": {"plain": "a\u200b"}, "x\u202e": {"plain": "b\u200b"}})

    _, report = await cleaner.clean(CONTRACT, result)

    assert report == ("pages[].plain: 2 invisible",)


async def test_leaves_the_result_as_it_was(cleaner: Cleaner) -> None:
    result = make(page={"plain": "a\u200b"})

    await cleaner.clean(CONTRACT, result)

    assert result == make(page={"plain": "a\u200b"})


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        ({"json": '{"s3cret":1,"s3cret":2}'}, "page.json (JSON) is JSON with a key that stands twice"),
        ({"json": "s3cret"}, "page.json (JSON) is no JSON value"),
        ({"html": "<i>" * 60_000}, "page.html (HTML) nests too deep"),
        ({"lines": ["a", "x" * 2_000_000]}, "page.lines[] (HTML) is longer than its format may be"),
        ({"markdown": "s3cret " * 60_000}, "page.markdown (MARKDOWN) is longer than its format may be"),
        ({"long": "a\u200b\u200bb"}, "a field breaks its contract once what nobody sees was taken out of it"),
    ],
)
async def test_refuses_what_it_cannot_clean_and_tells_nothing_of_it(
    cleaner: Cleaner, page: dict[str, Any], cause: str
) -> None:
    with pytest.raises(NotCleaned) as caught:
        await clean(cleaner, **page)

    assert str(caught.value) == cause


# --- the whole path ----------------------------------------------------------------------------------------
@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


async def test_writes_what_was_removed_into_record_and_audit(shop: Workshop) -> None:
    request = shop.lookup()
    shop.tool = answering(result_of(shop, request, order={"customer": {"note": "a\u202eb\U000e0041"}}))

    await shop.path.answer(request)
    await shop.path.drain(5)

    (call,) = await shop.calls()
    assert call.removed == ("order.customer.note: 1 bidirectional, 1 tag",)
    events = [json.loads(record.payload) for record in shop.store.state.audit]
    (ended,) = [event for event in events if event["kind"] == "call.succeeded"]
    assert ended["details"]["removed"] == list(call.removed)


async def test_says_nothing_of_a_result_that_lost_nothing(shop: Workshop) -> None:
    request = shop.lookup()
    shop.tool = answering(result_of(shop, request, order={"customer": {"note": "Tom <tom@x.org>"}}))

    await shop.path.answer(request)
    await shop.path.drain(5)

    (call,) = await shop.calls()
    assert (call.state, call.removed) == (CallState.SUCCEEDED, ())
    assert "removed" not in json.loads(shop.store.state.audit[-1].payload)["details"]


async def test_trusts_no_link_while_the_grants_are_broken(shop: Workshop) -> None:
    assert shop.grants.trusted_origins("shop", "dev") == frozenset()
    assert shop.grants.trusted_origins("nobody", "dev") == frozenset()


async def test_trusts_the_links_to_hosts_of_the_registry(shop: Workshop) -> None:
    listed = '[[destination]]\nvalue = "https://docs.example"\nmatch = "host"\n'
    single = '[[destination]]\nvalue = "https://one.example/page"\n'
    grants = await shop.grants.compile("shop", {"destinations.toml": listed + single})

    assert grants.destinations("dev").origins == {"https://docs.example"}


# --- the stage by itself -----------------------------------------------------------------------------------
SECRET = "s3cret-word-of-the-call"


async def sanitize(cleaner: Cleaner, secret: str = SECRET, **page: Any) -> Answer:
    """Sanitize a result of a call with that secret."""
    bench = await Bench.make()
    call, trail = await bench.make_call()
    alarm = LeakAlarm(bench.store, Debts(FakeVault(), bench.store))
    lease = make_lease(UsernamePassword("v", Secret(secret)))
    output = RawOutput(make(page=page).SerializeToString())
    return await Sanitizer(alarm, cleaner)(replace(call, contract=CONTRACT), output, [lease], trail)


async def test_throws_a_result_away_that_cannot_be_cleaned(cleaner: Cleaner) -> None:
    with pytest.raises(Failed) as caught:
        await sanitize(cleaner, json="nonsense of a stranger")

    assert (caught.value.reason_name, caught.value.details) == ("RESULT_INVALID", {})
    assert "page.json (JSON) is no JSON value" in caught.value.message
    assert "stranger" not in caught.value.message


@pytest.mark.parametrize(
    "page",
    [
        {"html": "s3cret&#8203;-word-<b></b>of-<!-- x -->the-call"},
        {"html": "s3cret-word-of-<i hidden>x</i>the-&#99;all"},
        {"markdown": "s3cret-word-of-**the**-<b></b>call s3cret-word-o<!-- x -->f-the-call"},
        {"json": '["s3cret-word-of\\u200b-the-call"]'},
        {"plain": "s3cret-word-\u2060of-the-call"},
    ],
)
async def test_finds_a_secret_that_markup_hid(cleaner: Cleaner, page: dict[str, str]) -> None:
    answer = await sanitize(cleaner, **page)

    assert SECRET.encode() not in answer.result
    assert b"[redacted]" in answer.result


MARKED = "pw_-*a<b&lt;c`d[e]f~~g://h_&amp;z"
"""What cleaning writes with marks of its own between the letters."""


@pytest.mark.parametrize(
    "page",
    [
        {"markdown": html.escape(MARKED).replace("*", "&#42;").replace("`", "&#96;").replace("[", "&#91;")},
        {"markdown": f"```\n{MARKED}\n```"},
        {"markdown": f"{html.escape(MARKED)}".replace("_", "\\_").replace("*", "\\*").replace("`", "\\`")},
        {"html": html.escape(MARKED)},
        {"html": f"<p>{html.escape(MARKED)[:4]}<b></b>{html.escape(MARKED)[4:]}"},
        {"json": json.dumps([MARKED])},
        {"plain": MARKED},
    ],
)
async def test_finds_a_secret_that_is_written_with_marks_of_its_format(
    cleaner: Cleaner, page: dict[str, str]
) -> None:
    answer = await sanitize(cleaner, MARKED, **page)

    assert b"redacted" in answer.result
    assert b"pw" not in answer.result


# --- tenants apart ---------------------------------------------------------------------------------
async def test_gives_no_two_tenants_one_worker(cleaner: Cleaner) -> None:
    page = make(page={"html": "<p hidden>x</p>seen"})

    await asyncio.gather(
        *(cleaner.clean(CONTRACT, page, tenant=tenant) for tenant in ("shop", "bank", "shop"))
    )

    pids = [cleaner.find_worker(tenant, is_long=False).pid for tenant in ("shop", "bank")]
    assert None not in pids
    assert len(set(pids)) == 2
    assert count_starts(cleaner, "shop") == (1, 0)


async def test_keeps_one_tenant_waiting_for_no_other(cleaner: Cleaner) -> None:
    slow = make(page={"html": "<p " + " ".join(f"a{n}=1" for n in range(4_000)) + ">"})
    flood = [asyncio.create_task(cleaner.clean(CONTRACT, slow, tenant="shop")) for _ in range(40)]

    await cleaner.clean(CONTRACT, make(page={"html": "<p>x"}), tenant="bank")

    assert not all(task.done() for task in flood)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_ends_the_workers_of_tenants_that_have_no_work(cleaner: Cleaner) -> None:
    page = make(page={"html": "<p>x"})
    for number in range(MAX_IDLE_TENANTS):
        cleaner.find_worker(f"t{number}", is_long=False)
    await cleaner.clean(CONTRACT, page, tenant="shop")
    pid = cleaner.find_worker("shop", is_long=False).pid

    for number in range(MAX_IDLE_TENANTS):
        cleaner.find_worker(f"t{number}", is_long=False)
    await cleaner.clean(CONTRACT, page, tenant="bank")

    assert not Path(f"/proc/{pid}").exists()
