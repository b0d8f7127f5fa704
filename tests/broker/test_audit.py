"""The audit chain: what verify finds, and what it cannot find."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.audit import START, Anchor, Broken, Verified, seal, verify
from broker.store.records import AuditEvent, AuditRecord

KEY = b"0123456789abcdef0123456789abcdef"
KEYS = {"k1": KEY}
AT = datetime(2026, 11, 21, 9, 0, 0, 42, tzinfo=UTC)


def make_event(number: int = 0) -> AuditEvent:
    return AuditEvent(
        "call.reserved", "acme", "prod", AT, f"c{number}", "spiffe://x/a", {"grant": "refunds", "ü": number}
    )


def make_chain(length: int, first: int = 0) -> list[AuditRecord]:
    chain: list[AuditRecord] = []
    head = START
    for number in range(first, first + length):
        chain.append(seal(make_event(number), head, KEY, "k1"))
        head = Anchor(chain[-1].sequence, chain[-1].hash)
    return chain


async def stream(records: Sequence[AuditRecord]) -> AsyncIterator[AuditRecord]:
    for record in records:
        yield record


async def test_verifies_a_whole_chain_and_names_its_head() -> None:
    chain = make_chain(5)
    assert await verify(stream(chain), KEYS) == Verified(Anchor(5, chain[-1].hash))


async def test_verifies_an_empty_chain() -> None:
    assert await verify(stream([]), KEYS) == Verified(START)


@pytest.mark.parametrize("sequence", [1, 3, 5])
async def test_finds_a_payload_that_was_changed(sequence: int) -> None:
    chain = make_chain(5)
    record = chain[sequence - 1]
    chain[sequence - 1] = replace(record, payload=record.payload.replace("acme", "evil"))
    verdict = await verify(stream(chain), KEYS)
    assert isinstance(verdict, Broken)
    assert (verdict.sequence, "changed" in verdict.why) == (sequence, True)


@pytest.mark.parametrize("sequence", [1, 3, 4])
async def test_finds_where_a_record_was_removed(sequence: int) -> None:
    chain = make_chain(5)
    del chain[sequence - 1]
    verdict = await verify(stream(chain), KEYS)
    assert isinstance(verdict, Broken)
    assert (verdict.sequence, "missing" in verdict.why) == (sequence, True)


async def test_finds_a_removal_that_was_numbered_over() -> None:
    chain = make_chain(5)
    del chain[2]
    renumbered = [replace(record, sequence=number) for number, record in enumerate(chain, 1)]
    verdict = await verify(stream(renumbered), KEYS)
    assert isinstance(verdict, Broken)
    assert verdict.sequence == 3


async def test_finds_records_that_were_moved() -> None:
    chain = make_chain(5)
    chain[1], chain[2] = replace(chain[2], sequence=2), replace(chain[1], sequence=3)
    verdict = await verify(stream(chain), KEYS)
    assert isinstance(verdict, Broken)
    assert verdict.sequence == 2


async def test_finds_a_record_that_was_put_in() -> None:
    chain = make_chain(3)
    forged = seal(make_event(9), Anchor(3, chain[-1].hash), b"another key, 32 bytes in length!", "k1")
    verdict = await verify(stream([*chain, forged]), KEYS)
    assert isinstance(verdict, Broken)
    assert verdict.sequence == 4


RECORD = make_chain(2)[1]


@pytest.mark.parametrize(
    "changed",
    [replace(RECORD, schema_version=2), replace(RECORD, previous="0" * 64), replace(RECORD, hash="0" * 64)],
    ids=["schema_version", "previous", "hash"],
)
async def test_finds_a_change_beside_the_payload(changed: AuditRecord) -> None:
    chain = make_chain(3)
    verdict = await verify(stream([chain[0], changed, chain[2]]), KEYS)
    assert isinstance(verdict, Broken)
    assert verdict.sequence == 2


async def test_finds_a_record_of_another_chain_under_the_same_key() -> None:
    chain, other = make_chain(3), make_chain(3, first=10)
    verdict = await verify(stream([*chain[:2], other[2]]), KEYS)
    assert isinstance(verdict, Broken)
    assert (verdict.sequence, "does not continue" in verdict.why) == (3, True)


async def test_finds_a_record_told_to_be_of_another_key_with_the_same_bytes() -> None:
    chain = make_chain(2)
    chain[1] = replace(chain[1], key_id="k2")
    verdict = await verify(stream(chain), {"k1": KEY, "k2": KEY})
    assert isinstance(verdict, Broken)
    assert "key_id" in verdict.why


async def test_says_which_key_is_missing() -> None:
    verdict = await verify(stream(make_chain(1)), {"k2": KEY})
    assert isinstance(verdict, Broken)
    assert '"k1"' in verdict.why


async def test_verifies_a_chain_over_a_change_of_keys() -> None:
    chain = make_chain(2)
    chain.append(seal(make_event(), Anchor(2, chain[-1].hash), b"the second key, 32 bytes in it.!", "k2"))
    verdict = await verify(stream(chain), {**KEYS, "k2": b"the second key, 32 bytes in it.!"})
    assert verdict == Verified(Anchor(3, chain[-1].hash))


async def test_cannot_find_a_tail_that_was_cut_off() -> None:
    assert isinstance(await verify(stream(make_chain(5)[:3]), KEYS), Verified)


async def test_finds_a_tail_that_was_cut_off_with_the_head_seen_before() -> None:
    chain = make_chain(5)
    verdict = await verify(stream(chain[:3]), KEYS, Anchor(5, chain[-1].hash))
    assert isinstance(verdict, Broken)
    assert (verdict.sequence, "anchor is at 5" in verdict.why) == (4, True)


async def test_finds_another_chain_under_the_same_key_with_the_head_seen_before() -> None:
    chain = make_chain(5)
    verdict = await verify(stream(chain), KEYS, Anchor(3, "f" * 64))
    assert isinstance(verdict, Broken)
    assert verdict.sequence == 3


async def test_verifies_a_chain_that_grew_since_its_head_was_seen() -> None:
    chain = make_chain(5)
    seen = Anchor(3, chain[2].hash)
    assert isinstance(await verify(stream(chain), KEYS, Anchor.parse(str(seen))), Verified)


@pytest.mark.parametrize("text", ["", "3", "x:" + "0" * 64, "3:abc", "-1:" + "0" * 64])
def test_reads_no_anchor_where_there_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="anchor"):
        Anchor.parse(text)


def test_writes_canonical_json_that_holds_everything() -> None:
    payload = seal(make_event(7), START, KEY, "k1").payload
    assert payload == (
        '{"actor":"spiffe://x/a","at":"2026-11-21T09:00:00.000042Z","call_id":"c7",'
        '"details":{"grant":"refunds","ü":7},"environment":"prod","key_id":"k1","kind":"call.reserved",'
        '"schema_version":1,"sequence":1,"tenant":"acme"}'
    )


def test_has_a_hash_that_anybody_with_the_key_can_compute() -> None:
    record = seal(make_event(), START, KEY, "k1")
    said = ("0" * 64 + record.payload).encode()
    assert record.hash == hmac.new(KEY, said, "sha256").hexdigest()


def test_writes_every_time_in_utc() -> None:
    event = replace(make_event(), at=AT.astimezone(timezone(timedelta(hours=2))))
    assert json.loads(seal(event, START, KEY, "k1").payload)["at"] == "2026-11-21T09:00:00.000042Z"


def test_refuses_a_time_without_a_zone() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        seal(replace(make_event(), at=AT.replace(tzinfo=None)), START, KEY, "k1")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", object()], ids=repr)
def test_refuses_details_that_json_cannot_say(value: object) -> None:
    with pytest.raises(ValueError):
        seal(replace(make_event(), details={"x": value}), START, KEY, "k1")
