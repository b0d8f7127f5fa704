"""The control protocol: what does not check is no message."""

from __future__ import annotations

import asyncio
import json

import pytest

from sandboxes.egress.control import (
    ANSWERS,
    MAX_FRAME_BYTES,
    REQUESTS,
    Closed,
    ConnectionEntry,
    ControlError,
    OpenCall,
    decode,
    encode,
    printable,
    read_body,
)

OPEN: dict[str, object] = {"op": "open", "seq": 1, "call": "c", "uid": 5, "targets": ["orders-db"]}
ENTRY: dict[str, object] = {
    "target": "orders-db",
    "address": "",
    "opened_micros": 1,
    "closed_micros": 2,
    "bytes_up": 3,
    "bytes_down": 4,
    "outcome": "ended",
    "detail": "",
    "method": "",
    "path_template": "",
    "status": 0,
    "rule": "",
    "grant_rule": "",
    "injected": "",
    "stripped": 0,
    "request_sha256": "",
    "response_sha256": "",
}


def test_reads_what_it_wrote() -> None:
    message = OpenCall(1, "c", "nest-1-5", 5, ["orders-db"])
    assert decode(encode(message)[4:], REQUESTS) == message


def test_reads_the_records_of_a_closed_call() -> None:
    body = json.dumps({"op": "closed", "seq": 1, "connections": [ENTRY]}).encode()
    answer = decode(body, ANSWERS)
    assert isinstance(answer, Closed)
    assert isinstance(answer.connections[0], ConnectionEntry)
    assert answer.connections[0].record.bytes_down == 4


@pytest.mark.parametrize(
    "change",
    [
        {"op": "shell"},
        {"op": 1},
        {"op": "done"},
        {"seq": True},
        {"seq": -1},
        {"seq": 1.0},
        {"call": "../c"},
        {"call": 5},
        {"uid": 0},
        {"uid": "5"},
        {"uid": 2**31},
        {"targets": "orders-db"},
        {"targets": ["../x"]},
        {"targets": [1]},
        {"targets": ["a", "a"]},
        {"targets": [f"a{n}" for n in range(300)]},
        {"more": 1},
    ],
)
def test_refuses_a_request_that_does_not_check(change: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        decode(json.dumps(OPEN | change).encode(), REQUESTS)


@pytest.mark.parametrize(
    "change",
    [{"outcome": "fine"}, {"bytes_up": -1}, {"detail": "\u202e"}, {"detail": "x" * 2000}, {"more": 1}],
)
def test_refuses_a_record_that_does_not_check(change: dict[str, object]) -> None:
    body = json.dumps({"op": "closed", "seq": 1, "connections": [ENTRY | change]}).encode()
    with pytest.raises(ControlError):
        decode(body, ANSWERS)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[]", b"null", b'{"op":"close","seq":1}', b"[" * 100_000, b'{"op":"close","op":"close"}'],
)
def test_refuses_what_is_no_message(body: bytes) -> None:
    with pytest.raises(ControlError):
        decode(body, REQUESTS)


def test_does_not_write_a_message_that_could_not_be_read() -> None:
    with pytest.raises(ControlError, match="uid"):
        OpenCall(1, "c", "n", 0, [])


def test_makes_any_text_fit_for_a_message() -> None:
    assert printable("Verbindung\nabgelehnt é" + "x" * 900).isascii()


async def test_refuses_a_frame_longer_than_any_message() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ControlError, match="too long"):
        await read_body(reader)


async def test_takes_a_cut_frame_as_the_end() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\0\0\0\x05ab")
    reader.feed_eof()
    assert await read_body(reader) is None
