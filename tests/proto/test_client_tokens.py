"""Who a client is: a certificate or a token, over TLS, and nothing of it in what it shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.credentials.certificates import Authority
from tests.proto.scripted_broker import READ, Face, ScriptedBroker, refuse
from toolcrib.client import AsyncClient, Certificates, Client, ProfileInvalid, Token, Unreachable

SECRET = "eyJhbGciOi.x.y"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def guarded(authority: Authority) -> AsyncIterator[ScriptedBroker]:
    """A scripted broker behind TLS that takes clients without a certificate."""
    broker = ScriptedBroker()
    certificate, key = authority.issue("server")
    await broker.start(grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
    broker.address = broker.address.replace("localhost", "127.0.0.1")
    yield broker
    await broker.stop()


Connect = Callable[[Any], Face]


@pytest.fixture
async def connect(kind: str, guarded: ScriptedBroker) -> AsyncIterator[Connect]:
    faces: list[Face] = []

    def open_face(credentials: Any) -> Face:
        maker: Any = Client if kind == "sync" else AsyncClient
        faces.append(Face(maker.connect(guarded.address, credentials)))
        return faces[-1]

    yield open_face
    for face in faces:
        await face.close()


async def test_sends_a_token(connect: Connect, guarded: ScriptedBroker, authority: Authority):
    await connect(Token(SECRET, authority.certificate)).invoke(READ, {})
    assert guarded.metadata[0]["authorization"] == f"Bearer {SECRET}"


async def test_asks_for_a_token_before_every_try(
    connect: Connect, guarded: ScriptedBroker, authority: Authority
):
    tokens = iter(["one", "two"])
    guarded.steps = [refuse("DRAINING")]
    await connect(Token(lambda: next(tokens), authority.certificate)).invoke(READ, {})
    assert [sent["authorization"] for sent in guarded.metadata] == ["Bearer one", "Bearer two"]


async def test_reads_a_token_file_anew(
    connect: Connect, guarded: ScriptedBroker, authority: Authority, tmp_path: Path
):
    file = tmp_path / "token"
    client = connect(Token.from_file(file, authority.certificate))
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        await client.invoke(READ, {})
    assert [sent["authorization"] for sent in guarded.metadata] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("token", ["", "a b", "a\r\nx-admin: 1", "a\u00e9", 7])
async def test_sends_nothing_where_there_is_no_token(
    connect: Connect, guarded: ScriptedBroker, authority: Authority, token: Any
):
    with pytest.raises(Unreachable, match="no token"):
        await connect(Token(lambda: token, authority.certificate)).invoke(READ, {})
    assert guarded.seen == []


async def test_says_that_the_token_function_failed_without_its_words(
    connect: Connect, guarded: ScriptedBroker, authority: Authority
):
    def lose() -> str:
        raise RuntimeError(SECRET)

    with pytest.raises(Unreachable, match="RuntimeError") as error:
        await connect(Token(lose, authority.certificate)).invoke(READ, {})
    assert SECRET not in str(error.value)
    assert guarded.seen == []


async def test_takes_an_asynchronous_token_function(guarded: ScriptedBroker, authority: Authority):
    async def fetch() -> str:
        return "fresh"

    async with AsyncClient.connect(guarded.address, Token(fetch, authority.certificate)) as client:
        await client.invoke(READ, {})
    assert guarded.metadata[0]["authorization"] == "Bearer fresh"
    with Client.connect(guarded.address, Token(fetch, authority.certificate)) as other:
        with pytest.raises(TypeError, match="AsyncClient"):
            other.invoke(READ, {})


async def test_sends_no_token_to_a_server_of_another_ca(
    connect: Connect, guarded: ScriptedBroker, tmp_path: Path
):
    other = Authority(tmp_path, "other CA")
    with pytest.raises(Unreachable):
        await connect(Token(SECRET, other.certificate)).invoke(READ, {}, timeout=0.5)
    assert guarded.seen == []


async def test_shows_a_proxy_the_brokers_name_and_no_token(
    kind: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    """gRPC takes a proxy from the environment; TLS reaches through it to the broker."""
    heard = bytearray()
    serving: set[asyncio.Task[None] | None] = set()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(EOFError, OSError), contextlib.closing(writer):
            heard.extend(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            heard.extend(await reader.read(65_536))
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    proxy = await asyncio.start_server(listen, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    maker: Any = Client if kind == "sync" else AsyncClient
    face = Face(maker.connect("broker.example:7443", Token(SECRET, authority.certificate)))
    with pytest.raises(Unreachable):
        await face.invoke(READ, {}, timeout=0.3)
    await face.close()
    proxy.close()
    await asyncio.gather(*filter(None, serving))
    assert heard.startswith(b"CONNECT broker.example:7443")
    assert SECRET.encode() not in heard


def test_does_not_show_a_token():
    assert SECRET not in repr(Token(SECRET))


async def test_reads_both_kinds_of_profile(
    kind: str, guarded: ScriptedBroker, authority: Authority, tmp_path: Path
):
    (tmp_path / "ca.pem").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text(SECRET)
    text = f'address = "{guarded.address}"\nca = "ca.pem"\ntoken_file = "token"\n'
    (tmp_path / "profile.toml").write_text(text)
    maker: Any = Client if kind == "sync" else AsyncClient
    face = Face(maker.from_profile(tmp_path))
    await face.invoke(READ, {})
    await face.close()
    assert guarded.metadata[0]["authorization"] == f"Bearer {SECRET}"


def test_says_which_certificate_cannot_be_read(tmp_path: Path):
    lost = Certificates(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(ProfileInvalid, match=r"ca\.pem: cannot be read"):
        Client.connect("127.0.0.1:1", lost)
