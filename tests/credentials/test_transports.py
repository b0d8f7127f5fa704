"""Both ways to Vault: one contract, against a real one and against servers that are odd or hostile."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from credentials.errors import Cause
from credentials.secret import Secret
from credentials.transport import AsyncTransport, HvacTransport, Peer, Transport, VaultFault
from tests.credentials.certificates import Authority
from tests.credentials.odd_server import (
    answer,
    answer_and_close,
    close,
    drip,
    in_turn,
    run_odd_server,
    say_nothing,
)

TOKEN = Secret("s.the-token-that-must-not-leave")
LOGIN = "database/creds/notes-read"

Connect = Callable[..., Transport]


@pytest.fixture(params=[AsyncTransport, HvacTransport])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes a transport; it is closed after the test."""
    async with AsyncExitStack() as stack:

        def make(address: str, **peer: Any) -> Transport:
            made: Transport = request.param(Peer(address, **({"timeout_seconds": 2.0} | peer)))
            stack.push_async_callback(made.close)
            return made

        yield make


async def test_writes_reads_lists_and_deletes(connect: Connect, dev_vault) -> None:
    transport, root = connect(dev_vault.address), dev_vault.root_token
    path = "toolcrib-kv/data/of-a-transport"
    await transport.ask("post", path, root, {"data": {"a": "b"}})
    assert (await transport.ask("get", path, root))["data"]["data"] == {"a": "b"}
    assert "of-a-transport" in (await transport.ask("list", "toolcrib-kv/metadata", root))["data"]["keys"]
    assert await transport.ask("delete", "toolcrib-kv/metadata/of-a-transport", root) == {}
    with pytest.raises(VaultFault) as caught:
        await transport.ask("get", path, root)
    assert caught.value.cause is Cause.UNKNOWN


async def test_tells_what_vault_denies_from_what_it_finds_invalid(connect: Connect, dev_vault) -> None:
    transport = connect(dev_vault.address)
    with pytest.raises(VaultFault, match="permission denied") as denied:
        await transport.ask("get", "auth/token/lookup-self", TOKEN)
    with pytest.raises(VaultFault, match="invalid role or secret ID") as invalid:
        await transport.ask("post", "auth/approle/login", None, {"role_id": "x", "secret_id": "y"})
    assert (denied.value.cause, invalid.value.cause) == (Cause.DENIED, Cause.INVALID)


async def test_answers_many_at_once(connect: Connect, dev_vault) -> None:
    transport = connect(dev_vault.address)
    asked = (transport.ask("get", "sys/health", None) for _ in range(40))
    assert len([one for one in await asyncio.gather(*asked) if one["initialized"]]) == 40


async def test_goes_on_after_it_connected_anew(connect: Connect, dev_vault) -> None:
    transport = connect(dev_vault.address)
    for _ in range(2):
        assert (await transport.ask("get", "sys/health", None))["initialized"]
        await transport.reconnect()


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, Cause.INVALID),
        (401, Cause.DENIED),
        (403, Cause.DENIED),
        (404, Cause.UNKNOWN),
        (405, Cause.INVALID),
        (429, Cause.OVERLOADED),
        (500, Cause.BACKEND),
        (502, Cause.UNREACHABLE),
        (503, Cause.SEALED),
    ],
)
async def test_reads_what_went_wrong(connect: Connect, status: int, cause: Cause) -> None:
    errors = {"errors": ["1 error occurred:\n\t* it did\n\n"]}
    with run_odd_server(answer(status, errors)) as server:
        with pytest.raises(VaultFault, match="^it did$") as caught:
            await connect(server.address).ask("get", "x", TOKEN)
    assert caught.value.cause is cause


@pytest.mark.parametrize("act", [close, answer(500, {"errors": ["done all the same"]})])
async def test_sends_once_what_must_not_be_sent_twice(connect: Connect, act) -> None:
    with run_odd_server(act) as server:
        with pytest.raises(VaultFault):
            await connect(server.address).ask("get", LOGIN, TOKEN, repeatable=False)
        assert len(server.got) == 1


async def test_sends_once_what_must_not_be_sent_twice_over_a_connection_of_before(connect: Connect) -> None:
    with run_odd_server(answer()) as server:
        transport = connect(server.address)
        await transport.ask("get", "x", TOKEN)
        server.act = close
        with pytest.raises(VaultFault):
            await transport.ask("get", LOGIN, TOKEN, repeatable=False)
        assert [head.split()[1] for head in server.got] == ["/v1/x", f"/v1/{LOGIN}"]


async def test_sends_again_what_may_be_sent_again(connect: Connect) -> None:
    with run_odd_server(answer()) as server:
        transport = connect(server.address)
        await transport.ask("get", "x", TOKEN)
        server.act = in_turn(close, answer())
        assert await transport.ask("get", "y", TOKEN) == {}
        assert [head.split()[1] for head in server.got] == ["/v1/x", "/v1/y", "/v1/y"]


async def test_is_not_misled_by_a_connection_that_was_closed_while_idle(connect: Connect) -> None:
    with run_odd_server(answer_and_close) as server:
        transport = connect(server.address)
        for _ in range(3):
            assert await transport.ask("get", LOGIN, TOKEN, repeatable=False) == {}
            await asyncio.sleep(0.05)
        assert len(server.got) == 3


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_carries_the_token_to_no_other_address(connect: Connect, status: int) -> None:
    with run_odd_server(answer()) as elsewhere:
        head = f"Location: {elsewhere.address}/v1/x\r\n"
        with run_odd_server(answer(status, head=head)) as server:
            with pytest.raises(VaultFault, match="another address") as caught:
                await connect(server.address).ask("get", "x", TOKEN)
        assert (caught.value.cause, elsewhere.got) == (Cause.UNREACHABLE, [])


async def test_asks_no_proxy_that_the_environment_names(connect: Connect, monkeypatch) -> None:
    with run_odd_server(answer()) as proxy, run_odd_server(answer()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        await connect(server.address).ask("get", "x", TOKEN)
        assert (len(server.got), proxy.got) == (1, [])


async def test_takes_no_answer_that_is_too_large(connect: Connect) -> None:
    with run_odd_server(answer(body={"data": "x" * 5_000_000})) as server:
        with pytest.raises(VaultFault, match="is larger than") as caught:
            await connect(server.address).ask("get", "x", TOKEN)
    assert caught.value.cause is Cause.INVALID


async def test_reads_an_answer_of_many_pieces_to_its_end(connect: Connect) -> None:
    body = {"data": {"value": "x" * 1_000_000}}
    with run_odd_server(answer(body=body)) as server:
        assert await connect(server.address).ask("get", "x", TOKEN) == body


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"text"', b"\xff\xfe"])
async def test_takes_no_other_server_for_a_vault(connect: Connect, body: bytes) -> None:
    with run_odd_server(answer(body=body)) as server:
        with pytest.raises(VaultFault, match="is this a Vault") as caught:
            await connect(server.address).ask("get", "x", TOKEN)
    assert caught.value.cause is Cause.INVALID


@pytest.mark.parametrize("act", [say_nothing, drip])
async def test_waits_no_longer_than_its_timeout(connect: Connect, act) -> None:
    with run_odd_server(act) as server:
        transport = connect(server.address, timeout_seconds=0.4)
        with pytest.raises(VaultFault, match="within 0.4 s") as caught:
            async with asyncio.timeout(5):
                await transport.ask("get", LOGIN, TOKEN, repeatable=False)
        assert (caught.value.cause, len(server.got)) == (Cause.TIMEOUT, 1)


async def test_says_where_nobody_listens(connect: Connect) -> None:
    with pytest.raises(VaultFault, match="is Vault running there") as caught:
        await connect("http://127.0.0.1:1").ask("get", "x", TOKEN)
    assert caught.value.cause is Cause.UNREACHABLE


async def test_trusts_only_the_ca_that_it_was_given(connect: Connect, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue("server"))
    with run_odd_server(answer(), context) as server:
        assert await connect(server.address, ca_file=ours.certificate).ask("get", "x", TOKEN) == {}
        for ca in (other.certificate, None):
            with pytest.raises(VaultFault, match="is not trusted; check vault.ca_file"):
                await connect(server.address, ca_file=ca).ask("get", "x", TOKEN)
        assert len(server.got) == 1


@pytest.mark.parametrize("act", [close, answer(403), answer(500), say_nothing])
async def test_shows_the_token_in_no_error(connect: Connect, act) -> None:
    with run_odd_server(act) as server:
        transport = connect(server.address, timeout_seconds=0.4)
        with pytest.raises(VaultFault) as caught:
            await transport.ask("get", "x", TOKEN)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert TOKEN.reveal() not in f"{seen} {seen!r}"
        seen = seen.__cause__ or seen.__context__
