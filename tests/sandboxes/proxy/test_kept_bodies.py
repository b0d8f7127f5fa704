"""Bodies that are kept until they are signed: so many bytes in all, a part of them for each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from credentials.injection import Form, Injection
from sandboxes.proxy.access import HttpAccess, HttpCaps
from sandboxes.proxy.shares import KEPT_BYTES, Shares
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    Doors,
    Serve,
    answering,
    opening,
    permit,
    proxying,
    read_all,
    running,
    serving,
)
from tests.sandboxes.proxy.test_shares import read_kib

MIB = 1024 * 1024
LONGEST = 8 * MIB
PUT = b"PUT /a HTTP/1.1\r\nHost: pages.example\r\n"
MEASURED = PUT + b"Content-Length: %d\r\n" % LONGEST
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n"
WAITING = b"Expect: 100-continue\r\n\r\n"
STORE = Injection(
    "store",
    Form.SIGV4,
    {
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": "k3y-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "session_token": "",
        "region": "eu-central-1",
        "service": "s3",
    },
)
Held = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
End = Callable[[Doors, Held], Awaitable[None]]


def signing(seconds: float = 300.0) -> HttpAccess:
    return permit("PUT /{path:rest}", caps=HttpCaps(request_bytes=LONGEST, seconds=seconds), injection=STORE)


@asynccontextmanager
async def two_calls(seconds: float = 300.0) -> AsyncIterator[tuple[Doors, Doors]]:
    """Hold two calls of one process; the time is the first one's for a request."""
    async with serving(answering(OK)) as target, running(target.declare()) as child:
        async with opening(child, signing(seconds)) as one, opening(child, signing(), name="c2") as other:
            yield one, other


async def announce(doors: Doors, held: Held, raw: bytes = MEASURED) -> bytes:
    """Say that a long body comes; give the first line of what is said to that."""
    held.append(await doors.connect("pages"))
    reader, writer = held[-1]
    writer.write(raw + WAITING)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readline()


async def announce_many(doors: Doors, held: Held, count: int) -> int:
    """Say so as often as that; give how often it may come."""
    return sum([(await announce(doors, held)).startswith(b"HTTP/1.1 100 ") for _ in range(count)])


def drop(held: Held) -> None:
    for _, writer in held:
        writer.transport.abort()
    held.clear()


def test_leaves_as_much_to_the_others_as_a_call_keeps() -> None:
    shares = Shares(1)
    greedy, modest, late = shares.open(16), shares.open(16), shares.open(16)
    kept = [
        sum(not one.find_problem_with_bytes(MIB) for _ in range(KEPT_BYTES // MIB))
        for one in (greedy, modest)
    ]
    assert kept == [KEPT_BYTES // MIB // 2, KEPT_BYTES // MIB // 4]
    assert late.find_problem_with_bytes(LONGEST) == ""


def test_never_keeps_more_than_there_is_however_many_calls_there_are() -> None:
    shares = Shares(1)
    calls = [shares.open(16) for _ in range(200)]
    kept = sum(not one.find_problem_with_bytes(MIB) for _ in range(16) for one in calls)
    assert 0 < kept * MIB <= KEPT_BYTES


def test_keeps_again_what_was_given_back() -> None:
    shares = Shares(1)
    share, other = shares.open(16), shares.open(16)
    assert share.find_problem_with_bytes(KEPT_BYTES // 2) == ""
    assert "try again" in other.find_problem_with_bytes(KEPT_BYTES // 2)
    share.give_bytes_back(KEPT_BYTES // 2)
    assert other.find_problem_with_bytes(KEPT_BYTES // 2) == ""


def test_keeps_nothing_for_a_call_that_is_closed() -> None:
    share = Shares(1).open(16)
    share.close()
    assert "try again" in share.find_problem_with_bytes(1)


async def test_signs_anothers_body_while_a_call_keeps_all_that_it_can() -> None:
    body = b"x" * LONGEST
    async with two_calls() as (one, other):
        before, held = read_kib(one.pid), Held()
        for _ in range(16):
            held.append(await one.connect("pages"))
            held[-1][1].write(MEASURED + b"\r\n" + body[:-1])
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(writer.drain() for _, writer in held))
        said = await other.say(MEASURED + b"Connection: close\r\n\r\n" + body, "pages")
        assert said.startswith(b"HTTP/1.1 200 ")
        assert 100 * MIB < (read_kib(one.pid) - before) * 1024 < KEPT_BYTES
        drop(held)


@pytest.mark.parametrize("raw", [MEASURED, CHUNKED], ids=["measured", "chunked"])
async def test_turns_a_body_away_that_there_is_no_room_for(raw: bytes) -> None:
    async with two_calls() as (one, other):
        held = Held()
        assert await announce_many(one, held, 16) == 16
        assert await announce_many(other, held, 8) == 8
        held.append(await other.connect("pages"))
        reader, writer = held[-1]
        writer.write(raw + b"\r\n" + b"10001\r\n" + b"x" * 65_537 + b"\r\n" * (raw is CHUNKED))
        answer = await read_all(reader)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"toolcrib-egress: LIMIT\r\n" in answer
        assert b"bodies that wait to be signed" in answer
        small = PUT + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi"
        assert (await other.say(small, "pages")).startswith(b"HTTP/1.1 200 ")
        drop(held)


async def answer_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a head, and take nothing of what comes behind it."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.Event().wait()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(("serve", "connections"), [(answering(OK), 1), (answer_at_once, 2)])
async def test_sends_nothing_behind_a_body_that_the_target_does_not_take(
    serve: Serve, connections: int
) -> None:
    async with serving(serve) as target, proxying(target, signing()) as doors:
        reader, writer = await doors.connect("pages")
        async with asyncio.timeout(PATIENCE_SECONDS):
            for body in (b"x" * LONGEST, b"hi"):
                writer.write(PUT + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                assert b" 200 " in await reader.readuntil(b"ok")
        assert target.connections == connections
        writer.transport.abort()


async def be_dropped(_: Doors, held: Held) -> None:
    drop(held)


async def be_broken(_: Doors, held: Held) -> None:
    for reader, writer in held:
        writer.write_eof()
        assert b" 400 " in await read_all(reader)


async def run_out_of_time(_: Doors, held: Held) -> None:
    for reader, _writer in held:
        assert b" 504 " in await read_all(reader)


async def be_answered(_: Doors, held: Held) -> None:
    for reader, writer in held:
        writer.write(b"x" * LONGEST)
        assert b" 200 " in await reader.readuntil(b"ok")


async def be_closed(doors: Doors, _: Held) -> None:
    await doors.close()


@pytest.mark.parametrize("end", [be_dropped, be_broken, run_out_of_time, be_answered, be_closed])
async def test_has_all_room_again_once_the_bodies_ended(end: End) -> None:
    async with two_calls(3.0 if end is run_out_of_time else 300.0) as (one, other):
        held, later = Held(), Held()
        assert await announce_many(one, held, 16) == 16
        async with asyncio.timeout(PATIENCE_SECONDS):
            await end(one, held)
            while await announce_many(other, later, 16) < 16:
                drop(later)
                await asyncio.sleep(0.05)
        drop(held + later)
