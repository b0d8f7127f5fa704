"""Limits and records of exchanges, and what becomes of connections that end."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from sandboxes.egress.records import Outcome
from sandboxes.proxy.access import HttpCaps
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    answering,
    permit,
    proxying,
    read_all,
    read_request,
    serving,
)
from tests.sandboxes.proxy.test_exchange import (
    ANY,
    CLOSE,
    GET,
    HOST,
    body_of,
    exchange,
    say_length,
    status_of,
)


async def test_refuses_a_request_that_is_larger_than_it_may_be() -> None:
    caps = HttpCaps(request_bytes=10)
    said, doors = await exchange(
        OK, b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n" + CLOSE + b"hello world", caps=caps
    )
    assert status_of(said) == 413
    assert doors.records[-1].address == ""


@pytest.mark.parametrize("head", [b"Content-Length: 5000\r\n\r\n", b"\r\n"])
async def test_refuses_an_answer_that_is_larger_than_it_may_be(head: bytes) -> None:
    said, doors = await exchange(
        b"HTTP/1.1 200 OK\r\n" + head + b"x" * 5_000, caps=HttpCaps(response_bytes=100)
    )
    assert status_of(said) == 502
    assert b"toolcrib-egress: SIZE\r\n" in said
    assert doors.records[-1].outcome is Outcome.CUT


async def test_lets_a_call_make_only_so_many_requests() -> None:
    access = permit(caps=HttpCaps(requests=2))
    async with serving(answering(OK)) as target, proxying(target, access) as doors:
        answer = await doors.say((GET + b"\r\n") * 2 + GET + CLOSE, "pages")
        assert [answer.count(b" 200 "), answer.count(b" 429 ")] == [2, 1]


async def test_ends_a_request_whose_time_is_over() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    access = permit(caps=HttpCaps(seconds=0.3))
    async with serving(stall) as target, proxying(target, access) as doors:
        answer = await doors.say(GET + CLOSE, "pages")
        assert (status_of(answer), (await doors.record()).outcome) == (504, Outcome.TIMED_OUT)


async def test_tells_what_it_did() -> None:
    body = b"hello"
    raw = b"POST /a HTTP/1.1\r\n" + HOST + say_length(body) + CLOSE + body
    async with serving(answering(OK)) as target, proxying(target, permit("POST /{p}"), digests=True) as doors:
        await doors.say(raw, "pages")
        record = await doors.record()
    assert (record.target, record.address, record.method) == ("pages", f"127.0.0.1:{target.port}", "POST")
    assert (record.status, record.path_template, record.rule) == (200, "/{p}", "POST /{p}")
    assert (record.bytes_up, record.bytes_down) == (len(raw), len(OK))
    assert record.request_sha256 == hashlib.sha256(body).hexdigest()
    assert record.response_sha256 == hashlib.sha256(b"ok").hexdigest()


async def test_tells_of_128_refusals_counts_the_rest_and_still_tells_of_what_is_allowed() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        await doors.say((b"DELETE /a HTTP/1.1\r\n" + HOST + b"\r\n") * 250 + GET + CLOSE, "pages")
        closed = await doors.close()
        assert (len(doors.records), closed.uncounted) == (129, 122)
        assert doors.records[-1].status == 200


async def test_asks_again_over_a_new_connection_when_the_kept_one_had_ended() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)  # and says nothing to it

    async with serving(once) as target, proxying(target) as doors:
        answer = await doors.say(GET + b"\r\n" + GET + CLOSE, "pages")
        assert (answer.count(b" 200 "), target.connections) == (2, 2)


async def test_does_not_send_a_write_twice_when_the_kept_connection_had_ended() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)

    post = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n"
    async with serving(once) as target, proxying(target, permit(*ANY)) as doors:
        answer = await doors.say(GET + b"\r\n" + post + CLOSE + b"hi", "pages")
        assert [answer.count(b" 200 "), answer.count(b" 502 ")] == [1, 1]
        assert target.bytes_heard.count(b"POST") == 1


async def test_takes_nothing_that_was_said_unasked_for_an_answer() -> None:
    poisoned = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    async with serving(answering(poisoned)) as target, proxying(target) as doors:
        answer = await doors.say(GET + b"\r\n" + GET + CLOSE, "pages")
        assert b"poison" not in answer
        assert target.connections == 2


async def test_ends_what_is_open_when_the_call_is_closed() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(stall) as target, proxying(target) as doors:
        reader, writer = await doors.connect("pages")
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not target.bytes_heard:
                await asyncio.sleep(0.005)
        await doors.close()
        assert await read_all(reader) == b""
        assert [one.outcome for one in doors.records] == [Outcome.ABORTED]
        with pytest.raises(OSError):
            await doors.connect("pages")
        writer.close()


async def test_answers_an_early_answer_while_the_body_still_comes() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await reader.read()

    raw = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 500000\r\n\r\n"
    async with serving(hasty) as target, proxying(target, permit(*ANY)) as doors:
        reader, writer = await doors.connect("pages")
        writer.write(raw + b"x" * 1000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert body_of(await read_all(reader)) == b"no"
        writer.close()
