"""Files that a tool gives back: searched, recorded, replayed; one with a secret goes nowhere."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import replace
from typing import Any

import pytest

from broker.api.tools_door import trailers
from broker.errors import CallError
from broker.model import Answer, Artefact, CallState, Mark
from broker.redaction import LONG_CHARACTERS
from sandboxes.outcome import RawArtefact
from tests.broker import bench
from tests.broker.disguises import DISGUISES
from tests.broker.test_bare_reads import WANTS, WatchedStore
from tests.broker.test_leaks import answering, events, list_kept, list_texts, read_call
from tests.broker.workshop import EMPTY, Workshop

REPORT = RawArtefact("report.csv", "text/csv", b"1,2\n\xff")
LISTED = Artefact("report.csv", "text/csv", 5, hashlib.sha256(REPORT.content).hexdigest())


@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


def give(shop: Workshop, *files: RawArtefact) -> None:
    """Have the tool give these files back."""
    shop.tool = answering(replace(EMPTY, artefacts=files))


async def refusal(shop: Workshop, request: Any) -> CallError:
    with pytest.raises(CallError) as error:
        await shop.path.answer(request)
    return error.value


async def test_records_a_file_with_the_answer(shop: Workshop):
    give(shop, REPORT)
    answer = await shop.path.answer(shop.lookup())
    call = await read_call(shop)
    assert (answer.artefacts, call.artefacts) == ((replace(LISTED, content=REPORT.content),), (LISTED,))
    assert await shop.store.read_artefact("shop", call.call_id, 0, 0) == REPORT.content
    assert call.labels


async def test_replays_a_write_with_its_files(shop: Workshop):
    give(shop, REPORT)
    first = await shop.path.answer(shop.draft())
    again = await shop.path.answer(shop.draft())
    assert (again.replayed, again.artefacts, again.call_id) == (True, (LISTED,), first.call_id)


async def test_tells_a_client_how_many_there_are(shop: Workshop):
    assert "toolcrib-artefacts" not in trailers(await shop.path.answer(shop.lookup()))
    give(shop, REPORT, replace(REPORT, name="b"))
    said = trailers(await shop.path.answer(shop.lookup()))
    assert said["toolcrib-artefacts"] == "2"
    assert sum(len(name) + len(value) for name, value in said.items()) < 2048


# --- leaks -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DISGUISES)
async def test_throws_a_file_with_a_secret_away(shop: Workshop, name: str):
    hidden = DISGUISES[name](shop.vault.password)
    give(shop, REPORT, RawArtefact("b", "text/plain", b"\xff\x00 " + hidden.encode() + b"\xfe"))
    error = await refusal(shop, shop.lookup())
    call = await read_call(shop)
    assert (error.reason_name, call.marks, call.artefacts) == (
        "SECRET_IN_RESULT",
        (Mark.SECRET_IN_RESULT,),
        (),
    )
    assert [event["details"]["credential"] for event in events(shop)] == ["orders_read"]
    assert hidden not in "\n".join([*await list_kept(shop), *list_texts([error.message, error.details])])
    assert await shop.store.read_artefact("shop", call.call_id, 0, 0) == b""


@pytest.mark.parametrize("is_name", [True, False])
async def test_searches_what_a_file_is_called(shop: Workshop, is_name: bool):
    said = f"x/{shop.vault.password}"
    give(shop, replace(REPORT, name=said) if is_name else replace(REPORT, media_type=said))
    assert (await refusal(shop, shop.lookup())).reason_name == "SECRET_IN_RESULT"
    assert shop.is_clean()


async def test_finds_a_secret_wherever_it_lies_in_a_long_file(shop: Workshop):
    size, secret = 3 * LONG_CHARACTERS, shop.vault.password.encode()
    filling = secrets.token_hex(size // 2).encode()
    for place in (0, LONG_CHARACTERS - 7, 2 * LONG_CHARACTERS - 7, size - len(secret)):
        content = filling[:place] + secret + filling[place + len(secret) :]
        give(shop, RawArtefact("long", "text/plain", content))
        assert (await refusal(shop, shop.lookup())).reason_name == "SECRET_IN_RESULT"
    give(shop, RawArtefact("long", "text/plain", filling))
    assert (await shop.path.answer(shop.lookup())).artefacts[0].size_bytes == size


async def test_says_that_a_write_was_applied_whose_file_was_thrown_away(shop: Workshop):
    give(shop, replace(REPORT, content=shop.vault.password.encode()))
    error = await refusal(shop, shop.draft())
    assert error.details["effect"] == "APPLIED"
    assert (await refusal(shop, shop.draft())).details["replayed"] == "true"


# --- durable ---------------------------------------------------------------------------------------------
async def test_waits_until_the_files_of_a_bare_read_are_durable(monkeypatch: pytest.MonkeyPatch):
    source = bench.shop_source()
    bare = replace(source, manifest_yaml=source.manifest_yaml.replace(WANTS, "{deadline_seconds: 10}"))
    monkeypatch.setattr(bench, "shop_source", lambda: bare)
    store = WatchedStore()
    shop = await Workshop.fill(store, await bench.Bench.make(store))
    give(shop, REPORT)
    answer: Answer = await shop.path.answer(shop.lookup())
    assert store.commits == ["reserve DISPATCHED", "complete"]
    assert (await shop.states(), len(answer.artefacts)) == ([CallState.SUCCEEDED], 1)


async def test_goes_on_with_other_calls_while_a_long_file_is_searched(shop: Workshop):
    give(shop, RawArtefact("long", "text/plain", b"%41\\u0041 " * 200_000))
    answering_it = asyncio.create_task(shop.path.answer(shop.lookup()))
    turns = 0
    while not answering_it.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await answering_it).artefacts
    assert turns > 10
