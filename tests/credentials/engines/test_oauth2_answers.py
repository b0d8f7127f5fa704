"""A token endpoint may answer anything: what is no good token is refused, and nothing of it is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from aiohttp.test_utils import TestServer

from credentials.engines.oauth2.endpoint import MAX_ANSWER_BYTES, OWN_WORDS, EndpointFault, post_form
from credentials.engines.oauth2.grants import read_grant
from credentials.engines.oauth2.role import OAuthRole
from credentials.errors import Cause, CredentialsUnavailable
from credentials.vault import VaultSession
from tests.credentials.certificates import Authority
from tests.credentials.engines.conftest import PASSWORD, TAG, role_of, wanted
from tests.parts.token_server import TokenServer

SAID = "s3cret-of-the-server"
GOOD: dict[str, Any] = {"access_token": "0123456789ab", "token_type": "Bearer", "expires_in": 60}
ROLE = OAuthRole(grant="client_credentials", token_url="https://a.example.org/", client_id="x", scope="read")


@pytest.fixture
def server(token_server: TokenServer) -> Iterator[TokenServer]:
    token_server.forget()
    yield token_server
    token_server.forget()


@pytest.fixture
async def session(engines_vault, vault_session) -> VaultSession:
    return vault_session


def answering(status: int, body: bytes, **headers: str):
    """Bend every answer into this one."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda *_: (status, body, named)


def saying(**changes: Any) -> bytes:
    """A good answer with changes; None leaves a field out."""
    return json.dumps(
        {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    ).encode()


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (answering(302, b"", Location=f"https://{SAID}.example.org/"), "is not followed"),
        (answering(307, b"", Location="/token"), "is not followed"),
        (answering(200, saying(), Content_Type="text/html"), "not of type application/json"),
        (answering(200, f"<html>{SAID}</html>".encode()), "no proper JSON"),
        (answering(200, json.dumps([GOOD, SAID]).encode()), "no proper JSON"),
        (answering(200, b'{"access_token": "a", "access_token": "b"}'), "no proper JSON"),
        (answering(200, b'{"expires_in": NaN}'), "no proper JSON"),
        (answering(200, b"[" * 30_000), "no proper JSON"),
        (answering(200, b"\xff\xfe"), "no proper JSON"),
        (answering(200, saying(), Content_Encoding="gzip"), "is compressed"),
        (answering(200, b" " * (MAX_ANSWER_BYTES + 1)), "is larger than 65536"),
        (answering(200, saying(expires_in=None)), "does not say when the token ends"),
        (answering(200, saying(token_type="mac")), "token_type is not Bearer"),
        (answering(200, saying(access_token=f"{SAID}\r\nX: y")), "is no bearer token"),
        (answering(200, saying(scope=f"read {SAID}")), "broader scope"),
        (answering(201, saying()), "refused with status 201"),
        (answering(400, json.dumps({"error": SAID}).encode()), "refused with status 400$"),
        (
            answering(401, json.dumps({"error": "invalid_client"}).encode()),
            "invalid_client, it does not know",
        ),
        (answering(503, SAID.encode()), "refused with status 503$"),
    ],
)
async def test_refuses_what_is_no_answer_and_tells_nothing_of_it(session, server, bend, words) -> None:
    server.bend = bend
    with pytest.raises(CredentialsUnavailable, match=words) as caught:
        await session.mint(TAG, wanted("oauth2"), 60)
    assert OWN_WORDS in caught.value.own_words and caught.value.owed == []
    told = "".join(traceback.format_exception(caught.value))
    assert SAID not in told and PASSWORD not in told
    assert len(server.asked) == 1


async def test_gives_up_on_an_endpoint_that_is_silent(server) -> None:
    server.hold = frozenset({"/token"})
    with pytest.raises(EndpointFault, match="no answer within 0.2 s") as caught:
        await post_form(server.token_url, {}, {}, "", 0.2)
    assert caught.value.cause is Cause.TIMEOUT


async def test_gives_up_on_an_endpoint_that_drips() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    application = web.Application()
    application.router.add_post("/token", drip)
    async with TestServer(application) as dripping:
        with pytest.raises(EndpointFault, match="no answer within"):
            await post_form(str(dripping.make_url("/token")), {}, {}, "", 0.3)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 2OO OK\r\n\r\n", b"\0" * 99, b"HTTP/1.1 200 OK\r\nA: " + b"x" * 99_999, b""]
)
async def test_refuses_what_is_no_http_and_keeps_no_header_of_ours(answer) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(EndpointFault) as caught:
            await post_form(f"http://127.0.0.1:{port}/", {}, {"Authorization": SAID}, "", 5)
    assert SAID not in repr(caught.value.__cause__)


async def test_says_that_nobody_answers() -> None:
    with pytest.raises(EndpointFault, match="it does not answer") as caught:
        await post_form("http://127.0.0.1:1/token", {}, {}, "", 5)
    assert caught.value.cause is Cause.UNREACHABLE


@pytest.mark.parametrize(
    "token",
    ["elevenchars", "", "x" * 8193, "with space in it", "ümlaut-in-token", 12345678901234, None, "a\0" * 9],
)
def test_takes_no_token_that_could_not_stand_in_a_header(token) -> None:
    with pytest.raises(EndpointFault):
        read_grant(ROLE, {**GOOD, "access_token": token})


@pytest.mark.parametrize("seconds", [0, -1, 366 * 86_400 + 1, True, "60", 60.5, [], {}])
def test_takes_no_odd_length_of_life(seconds) -> None:
    with pytest.raises(EndpointFault, match="expires_in"):
        read_grant(ROLE, {**GOOD, "expires_in": seconds})


@pytest.mark.parametrize("kind", ["urn:ietf:params:oauth:token-type:id_token", "", None, 7])
def test_takes_no_other_token_of_an_exchange(kind) -> None:
    role = OAuthRole(grant="token_exchange", token_url="https://a.example.org/", client_id="x", issuer="y")
    with pytest.raises(EndpointFault, match="no access token"):
        read_grant(role, {**GOOD, "issued_token_type": kind})


def test_takes_a_good_one_and_drops_the_rest() -> None:
    granted = read_grant(ROLE, {**GOOD, "token_type": "bearer", "refresh_token": SAID, "scope": "read"})
    assert (granted.token.reveal(), granted.expires_in_seconds) == ("0123456789ab", 60)
    assert SAID not in repr(granted)


def test_assumes_a_length_of_life_where_the_role_says_one() -> None:
    role = ROLE.model_copy(update={"assumed_seconds": 90})
    said = {name: value for name, value in GOOD.items() if name != "expires_in"}
    assert read_grant(role, said).expires_in_seconds == 90


async def test_sends_the_secret_as_the_standard_says(session, server) -> None:
    [lease] = await session.mint(TAG, wanted("oauth2"), 60)
    await session.end(lease)
    assert server.headers[-1]["authorization"].startswith("Basic ")
    assert server.look_up(lease.secrets[0].reveal())["client_id"] == role_of("oauth2")
    assert "client_secret" not in server.forms()[-1]


async def test_trusts_the_ca_that_the_secret_names_and_no_other(tmp_path) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other CA")
    with TokenServer(tls=ours.issue("login")) as server:
        reply = await post_form(server.token_url, {}, {}, ours.certificate.read_text(), 5)
        assert (reply.status, len(server.asked)) == (401, 1)
        for ca_pem in (other.certificate.read_text(), ""):
            with pytest.raises(EndpointFault, match="is not trusted"):
                await post_form(server.token_url, {}, {}, ca_pem, 5)
    assert len(server.asked) == 1


async def test_refuses_a_ca_that_is_none(server) -> None:
    with pytest.raises(EndpointFault, match="ca_pem"):
        await post_form(server.token_url, {}, {}, "no certificate", 5)


async def test_asks_no_proxy_that_the_environment_names(server, monkeypatch) -> None:
    with TokenServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base)
        await post_form(server.token_url, {}, {}, "", 5)
        assert (len(server.asked), proxy.asked) == (1, [])


@pytest.fixture
def stalled(monkeypatch) -> threading.Event:
    """Every name server stalls, until this is set."""
    released = threading.Event()

    def stall(*_: object, **__: object) -> list[Any]:
        released.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answered")

    monkeypatch.setattr(socket, "getaddrinfo", stall)
    return released


async def leaves_a_thread(stalled, seconds: float, ask: Callable[[], Awaitable[object]]) -> bool:
    """Ask more often than the loop has threads; returns whether one is free for others afterwards."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
    other = asyncio.ensure_future(asyncio.to_thread(str))
    done, _ = await asyncio.wait({other}, timeout=seconds)
    stalled.set()
    await other
    return bool(done)


async def test_stalled_names_would_hold_the_loops_own_threads(stalled) -> None:
    resolver = ThreadedResolver()
    assert not await leaves_a_thread(
        stalled, 0.3, lambda: asyncio.wait_for(resolver.resolve("login.example.org"), 0.2)
    )


async def test_stalled_names_hold_nobody_else(stalled) -> None:
    assert await leaves_a_thread(
        stalled, 30, lambda: post_form("https://login.example.org/", {}, {}, "", 0.2)
    )


async def test_looks_a_name_up(server) -> None:
    url = server.token_url.replace("127.0.0.1", "localhost")
    assert (await post_form(url, {}, {}, "", 5)).status == 401
