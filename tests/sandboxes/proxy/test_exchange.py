"""Requests through a real proxy process to real servers on loopback: what passes, and how it is written."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from credentials.injection import Form, Injection
from sandboxes.egress.records import Outcome
from tests.sandboxes.proxy.doors import (
    OK,
    Doors,
    answering,
    opening,
    permit,
    proxying,
    read_all,
    read_request,
    running,
    serving,
)

HOST = b"Host: pages.example\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST
CLOSE = b"Connection: close\r\n\r\n"
PROXIED = b"GET http://pages.example/a HTTP/1.1\r\n" + HOST
SECRET = "tok-7f3a9d2e5b8c1046"
BEARER = Injection("api", Form.BEARER, {"token": SECRET})
ANY = ("GET /{path:rest}?*", "HEAD /{path:rest}", "POST /{path:rest}")


def status_of(answer: bytes) -> int:
    return int(answer[9:12] or 0)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def say_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


async def exchange(answer: bytes, request: bytes = GET + CLOSE, **more: object) -> tuple[bytes, Doors]:
    """Have one request answered by a server that says these bytes and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)

    access = permit(*ANY, **more)  # type: ignore[arg-type]
    async with serving(serve) as target, proxying(target, access) as doors:
        said = await doors.say(request, "pages")
        await doors.record()
        return said, doors


@pytest.mark.parametrize(("raw", "door"), [(GET, "pages"), (PROXIED, "")])
async def test_passes_a_request_that_a_rule_allows(raw: bytes, door: str) -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        answer = await doors.say(raw + CLOSE, door)
        assert (status_of(answer), body_of(answer)) == (200, b"ok")
        assert target.bytes_heard.startswith(b"GET /a HTTP/1.1\r\nhost: pages.example\r\n")


async def test_writes_hop_by_hop_headers_and_those_of_no_rule_to_nobody() -> None:
    odd = b"Keep-Alive: 5\r\nProxy-Authorization: a\r\nTE: gzip\r\nX-Other: 1\r\nAccept: */*\r\n"
    named = b"Accept-Language: de\r\nConnection: close, accept-language\r\n\r\n"
    async with serving(answering(OK)) as target, proxying(target) as doors:
        await doors.say(GET + odd + named, "pages")
        names = {line.partition(b":")[0] for line in target.bytes_heard.split(b"\r\n")[1:] if line}
        assert names == {b"host", b"accept", b"accept-encoding"}


@pytest.mark.parametrize(
    ("line", "check"),
    [
        (b"DELETE /a HTTP/1.1", "METHOD"),
        (b"GET /a/../b HTTP/1.1", "URL"),
        (b"GET /a%2fb HTTP/1.1", "URL"),
        (b"POST /b HTTP/1.1", "PATH"),
        (b"POST /a?x=1 HTTP/1.1", "QUERY"),
        (b"GET http://other.example/a HTTP/1.1", "URL"),
        (b"GET * HTTP/1.1", "URL"),
    ],
)
async def test_refuses_with_the_check_that_failed_and_asks_nobody(line: bytes, check: str) -> None:
    access = permit("GET /{path:rest}", "POST /a")
    async with serving(answering(OK)) as target, proxying(target, access) as doors:
        answer = await doors.say(line + b"\r\n" + HOST + CLOSE, "pages")
        assert status_of(answer) in {400, 403}
        assert f"toolcrib-egress: {check}\r\n".encode() in answer
        assert body_of(answer).startswith(b"toolcrib: ")
        assert target.connections == 0


async def test_refuses_what_the_grant_does_not_allow_as_well() -> None:
    async with serving(answering(OK)) as target, proxying(target, permit(narrowed=())) as doors:
        assert b"toolcrib-egress: GRANT\r\n" in await doors.say(GET + CLOSE, "pages")
        assert target.connections == 0


@pytest.mark.parametrize("door", ["", "pages"])
async def test_refuses_another_host(door: str) -> None:
    raw = b"GET http://other.example/a HTTP/1.1\r\nHost: other.example\r\n"
    async with serving(answering(OK)) as target, proxying(target) as doors:
        assert b"toolcrib-egress: TARGET\r\n" in await doors.say(raw + CLOSE, door)
        assert target.connections == 0


async def test_keeps_one_connection_at_both_ends() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        reader, writer = await doors.connect("pages")
        for _ in range(3):
            writer.write(GET + b"\r\n")
            assert (await reader.readuntil(b"ok")).endswith(b"ok")
        writer.close()
        assert target.connections == 1


async def test_serves_pipelined_requests_one_after_another() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        answer = await doors.say((GET + b"\r\n") * 3 + GET + CLOSE, "pages")
        assert answer.count(b"HTTP/1.1 200 OK") == 4
        assert target.connections == 1


async def test_connects_anew_when_the_origin_changes() -> None:
    other = b"GET http://blog.example/b HTTP/1.1\r\nHost: blog.example\r\n"
    async with serving(answering(OK)) as pages, serving(answering(OK), "blog") as blog:
        async with running(pages.declare(), blog.declare()) as child:
            async with opening(child, permit(), permit(target="blog")) as doors:
                answer = await doors.say(PROXIED + b"\r\n" + other + b"\r\n" + PROXIED + CLOSE)
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert (pages.connections, blog.connections) == (2, 1)


async def test_goes_on_after_a_refusal_on_the_same_connection() -> None:
    refused = b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    async with serving(answering(OK)) as target, proxying(target) as doors:
        answer = await doors.say(refused + GET + CLOSE, "pages")
        assert [answer.count(b" 403 "), answer.count(b" 200 ")] == [1, 1]


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 11\r\n\r\nhello world",
        b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
async def test_passes_a_body_however_it_is_framed(framed: bytes) -> None:
    async with serving(answering(OK)) as target, proxying(target, permit(*ANY)) as doors:
        raw = b"POST /a HTTP/1.1\r\nConnection: close\r\n" + HOST + framed
        assert status_of(await doors.say(raw, "pages")) == 200
        sent = body_of(target.bytes_heard)
        assert b"railer" not in sent
        assert sent in {b"hello world", b"b\r\nhello world\r\n0\r\n\r\n"}


async def test_streams_a_large_body_up() -> None:
    body = bytes(range(256)) * 4_000
    async with serving(answering(OK)) as target, proxying(target, permit(*ANY)) as doors:
        raw = b"POST /a HTTP/1.1\r\n" + HOST + say_length(body) + CLOSE + body
        assert status_of(await doors.say(raw, "pages")) == 200
        assert body_of(target.bytes_heard) == body


async def test_tells_a_client_to_go_on_only_when_the_request_may_pass() -> None:
    expecting = HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with serving(answering(OK)) as target, proxying(target, permit(*ANY)) as doors:
        reader, writer = await doors.connect("pages")
        writer.write(b"POST /a HTTP/1.1\r\n" + expecting)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert b"200 OK" in await reader.readuntil(b"ok")
        writer.write(b"PUT /a HTTP/1.1\r\n" + expecting)
        assert b" 403 " in await read_all(reader)
        assert target.bytes_heard.count(b"HTTP/1.1") == 1
        writer.close()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nup to the end", b"up to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nup to the end", b"up to the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Go\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No\r\nX-A: b\r\n\r\n", b""),
        (b"HTTP/1.1 304 No\r\nContent-Length: 10\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
async def test_passes_an_answer_however_it_is_framed(answer: bytes, body: bytes) -> None:
    said, _ = await exchange(answer)
    assert status_of(said) in {200, 204, 304}
    assert b"X-T" not in said and b"103" not in said
    assert body_of(said) in {body, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)}


async def test_answers_head_without_a_body() -> None:
    said, _ = await exchange(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"HEAD /a HTTP/1.1\r\n" + HOST + CLOSE
    )
    assert b"content-length: 99\r\n" in said
    assert body_of(said) == b""


async def test_serves_http_1_0() -> None:
    said, _ = await exchange(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n",
    )
    assert body_of(said) == b"ok"


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(b"hello" * 1000)),
        (b"x-gzip", gzip.compress(b"hello" * 1000)),
        (b"deflate", zlib.compress(b"hello" * 1000)),
        (b"deflate", zlib.compress(b"hello" * 1000, wbits=-15)),
    ],
)
async def test_unpacks_what_comes_packed(coding: bytes, packed: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding + b"\r\n" + say_length(packed) + b"\r\n"
    said, _ = await exchange(head + packed)
    assert body_of(said) == b"hello" * 1000
    assert b"ncoding" not in said


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip at all",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Go\r\n\r\n" * 40,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 40_000,
        b"220 mail ESMTP\r\n\r\n",
        b"",
    ],
)
async def test_passes_nothing_on_of_an_answer_that_is_none(answer: bytes) -> None:
    said, doors = await exchange(answer)
    assert status_of(said) == 502
    assert b"toolcrib-egress: ANSWER\r\n" in said
    assert doors.records[-1].outcome is Outcome.BAD_ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + b"a" * 70_000 + b"\r\nzz\r\n",
    ],
)
async def test_cuts_an_answer_that_ends_too_early_so_that_nobody_takes_it_for_whole(answer: bytes) -> None:
    said, doors = await exchange(answer)
    assert b"\r\n0\r\n" not in said
    assert len(body_of(said)) < 80_000
    assert doors.records[-1].outcome is Outcome.BAD_ANSWER


async def test_passes_a_redirect_and_does_not_follow_it() -> None:
    said, _ = await exchange(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"Location: http://127.0.0.1/x\r\n".lower() in said.lower()
    assert status_of(said) == 302


async def test_lets_a_target_not_look_like_a_refusal_or_name_another_way() -> None:
    said, _ = await exchange(
        b"HTTP/1.1 200 OK\r\nToolcrib-Egress: ALLOWED\r\nAlt-Svc: h3=x\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"oolcrib" not in said and b"lt-" not in said


async def test_adds_the_credential_and_takes_it_out_of_what_comes_back() -> None:
    echo = b"you are Bearer " + SECRET.encode()
    head = b"HTTP/1.1 200 OK\r\nX-You: " + SECRET.encode() + b"\r\nSet-Cookie: a=b\r\n"
    async with serving(answering(head + say_length(echo) + b"\r\n" + echo)) as target:
        async with proxying(target, permit(injection=BEARER)) as doors:
            answer = await doors.say(GET + b"Authorization: Bearer mine\r\n" + CLOSE, "pages")
            record = await doors.record()
    assert f"authorization: Bearer {SECRET}\r\n".encode() in target.bytes_heard
    assert b"mine" not in target.bytes_heard
    assert SECRET.encode() not in answer and b"et-cookie" not in answer.lower()
    assert body_of(answer) == b"you are Bearer [redacted]"
    assert (record.injected, record.stripped) == ("api", 2)
