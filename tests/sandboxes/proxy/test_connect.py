"""CONNECT at the forward door: requests inside are judged, TLS is opened, and opaque targets go blind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandboxes.egress.records import Outcome
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.proxy.authority import make_authority
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    Doors,
    Serve,
    answering,
    opening,
    permit,
    proxying,
    read_request,
    running,
    serving,
)
from tests.sandboxes.proxy.loopback import Listener, client_hello, listening, server_context, trusting

AUTHORITY, TARGETS_AUTHORITY = make_authority(), make_authority()
CONNECT = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n"


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(OK)


@asynccontextmanager
async def opened(access: HttpAccess, serve: Serve = answer_once) -> AsyncIterator[tuple[Listener, Doors]]:
    """A call to a target that speaks TLS as api.example."""
    async with listening(serve, server_context(TARGETS_AUTHORITY)) as server:
        target = HttpTarget(
            "api", "127.0.0.1", server.port, ("https://api.example",), TARGETS_AUTHORITY.certificate_pem
        )
        async with running(target) as child:
            async with opening(child, access, authority=AUTHORITY) as doors:
                yield server, doors


async def say_in_tls(doors: Doors, context: ssl.SSLContext, raw: bytes, name: str = "api.example") -> bytes:
    """Ask through a tunnel, in TLS."""
    reader, writer = await doors.connect()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(CONNECT)
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(context, server_hostname=name)
            writer.write(raw)
            return await reader.read()
    finally:
        writer.transport.abort()


async def test_opens_tls_and_judges_what_is_inside() -> None:
    async with opened(permit("GET /a", target="api")) as (_, doors):
        context = trusting(AUTHORITY, ("h2", "http/1.1"))
        assert (await say_in_tls(doors, context, GET)).endswith(b"\r\n\r\nok")
        refused = await say_in_tls(doors, context, GET.replace(b"/a", b"/b"))
        assert b"toolcrib-egress: PATH\r\n" in refused
        await doors.record(2)
        assert [one.status for one in doors.records] == [200, 403]


async def test_refuses_another_host_inside_the_tunnel() -> None:
    async with opened(permit("GET /a", target="api")) as (server, doors):
        inside = GET.replace(b"api.example", b"other.example")
        assert b"toolcrib-egress: TARGET\r\n" in await say_in_tls(doors, trusting(AUTHORITY), inside)
        assert server.connections == 0


async def test_does_not_talk_to_a_target_whose_certificate_does_not_hold() -> None:
    async with listening(answering(OK), server_context(make_authority())) as server:
        target = HttpTarget(
            "api", "127.0.0.1", server.port, ("https://api.example",), TARGETS_AUTHORITY.certificate_pem
        )
        async with running(target) as child:
            async with opening(child, permit(target="api"), authority=AUTHORITY) as doors:
                answer = await doors.say(GET, "api")
                assert b"toolcrib-egress: CONNECT\r\n" in answer
                assert (await doors.record()).outcome is Outcome.CONNECT_FAILED


async def test_speaks_tls_for_the_targets_own_door() -> None:
    async with opened(permit("GET /a", target="api")) as (_, doors):
        assert (await doors.say(GET, "api")).endswith(b"\r\n\r\nok")


async def test_judges_plain_requests_in_a_tunnel() -> None:
    tunnel = b"CONNECT pages.example:80 HTTP/1.1\r\nHost: pages.example:80\r\n\r\n"
    async with serving(answering(OK)) as target, proxying(target, permit("GET /a")) as doors:
        reader, writer = await doors.connect()
        for path, check in ((b"/a", b"ok"), (b"/b", b"PATH")):
            if path == b"/a":
                writer.write(tunnel)
                await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: pages.example\r\n\r\n")
            assert check in await reader.readuntil(check)
        writer.close()
        assert target.connections == 1


@pytest.mark.parametrize(
    ("raw", "check"),
    [
        (b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n", "TARGET"),
        (b"CONNECT api.example:22 HTTP/1.1\r\nHost: api.example:22\r\n\r\n", "TARGET"),
        (b"CONNECT api.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", "REQUEST"),
        (b"CONNECT api.example HTTP/1.1\r\nHost: api.example\r\n\r\n", "REQUEST"),
        (b"CONNECT https://api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", "REQUEST"),
        (CONNECT + b"too early", "REQUEST"),
    ],
)
async def test_refuses_a_tunnel_to_anything_else(raw: bytes, check: str) -> None:
    async with opened(permit("GET /a", target="api")) as (server, doors):
        assert f"toolcrib-egress: {check}\r\n".encode() in await doors.say(raw)
        assert server.connections == 0


async def test_tells_of_tls_that_was_not_opened() -> None:
    async with opened(permit("GET /a", target="api")) as (_, doors):
        reader, writer = await doors.connect()
        writer.write(CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await doors.record()).outcome is Outcome.PROTOCOL_REFUSED
        writer.close()


async def test_carries_tls_to_an_opaque_target_unread() -> None:
    access = HttpAccess("api", (), opaque=True)
    async with opened(access) as (_, doors):
        context = trusting(TARGETS_AUTHORITY)  # the target's own certificate is seen inside
        assert await say_in_tls(doors, context, GET) == OK
        record = await doors.record()
        assert (record.method, record.outcome, record.path_template) == ("CONNECT", Outcome.ENDED, "")


FIRST = [client_hello("other.example"), client_hello(None), b"GET / HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize("first", FIRST, ids=["other", "none", "plain"])
async def test_sends_nothing_to_an_opaque_target_before_its_name_was_said(first: bytes) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())

    async with listening(listen) as server:
        target = HttpTarget("api", "127.0.0.1", server.port, ("https://api.example",))
        async with running(target) as child, opening(child, HttpAccess("api", (), opaque=True)) as doors:
            reader, writer = await doors.connect()
            writer.write(CONNECT)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            record = await doors.record()
            writer.close()
        assert record.outcome is Outcome.PROTOCOL_REFUSED
        assert heard == b""


async def test_opens_no_blind_tunnel_where_the_grant_narrows() -> None:
    async with opened(HttpAccess("api", (), narrowed=(), opaque=True)) as (server, doors):
        assert b"toolcrib-egress: GRANT\r\n" in await doors.say(CONNECT)
        assert server.connections == 0
