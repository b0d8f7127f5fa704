"""Connections to targets: looked up once, checked, verified."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.authority import make_authority
from sandboxes.proxy.dialing import ClientCertificate, Dialer, DialFailed, Names, Obstacle, Trust
from tests.sandboxes.proxy.loopback import Listener, listening, on_uvloop, server_context

HOST = "api.example"


def declare(listener: Listener, host: str = "127.0.0.1", **more) -> HttpTarget:
    return HttpTarget("api", host, listener.port, (f"https://{HOST}",), **more)


def answering(*answers: list[str]) -> Names:
    """A resolver that gives these answers in turn, the last one for ever."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))
    return Names(lambda host, port: next(turns))


@contextlib.contextmanager
def refused(kind: Obstacle, match: str = ".") -> Iterator[None]:
    with pytest.raises(DialFailed, match=match) as caught:
        yield
    assert caught.value.kind is kind


async def say(dialer: Dialer, target: HttpTarget, host: str = HOST, **more) -> bytes:
    dialed = await dialer.dial(target, host, **{"opened": True, "seconds": 10, **more})
    dialed.writer.write(b"x")
    try:
        return await dialed.reader.read()
    finally:
        dialed.writer.close()
        with contextlib.suppress(OSError):
            await dialed.writer.wait_closed()


@on_uvloop
async def test_connects_to_the_address_that_is_declared_and_says_which() -> None:
    async with listening() as listener:
        dialed = await Dialer().dial(declare(listener), HOST, opened=False, seconds=10)
        assert dialed.address == f"127.0.0.1:{listener.port}"
        dialed.writer.close()


@on_uvloop
async def test_speaks_tls_verified_for_the_host_that_was_asked_for() -> None:
    authority = make_authority()
    async with listening(context=server_context(authority)) as listener:
        assert await say(Dialer(), declare(listener, ca_pem=authority.certificate_pem)) == b"hello"


@on_uvloop
async def test_refuses_a_certificate_for_another_host() -> None:
    authority = make_authority()
    async with listening(context=server_context(authority, "127.0.0.1")) as listener:
        with refused(Obstacle.TLS, "Hostname mismatch"):
            await say(Dialer(), declare(listener, ca_pem=authority.certificate_pem))


@on_uvloop
async def test_refuses_a_certificate_of_another_authority_and_of_none_that_the_system_knows() -> None:
    async with listening(context=server_context(make_authority())) as listener:
        for ca_pem in (make_authority().certificate_pem, ""):
            with refused(Obstacle.TLS, "unable to get local issuer certificate"):
                await say(Dialer(), declare(listener, ca_pem=ca_pem))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@on_uvloop
async def test_refuses_tls_1_1_and_plain_text() -> None:
    authority = make_authority()
    old = server_context(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    for context in (old, None):
        async with listening(context=context) as listener:
            with refused(Obstacle.TLS):
                await say(Dialer(), declare(listener, ca_pem=authority.certificate_pem))


@on_uvloop
async def test_offers_http_1_1_alone() -> None:
    authority = make_authority()
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(context=context) as listener:
        target = declare(listener, ca_pem=authority.certificate_pem)
        dialed = await Dialer().dial(target, HOST, opened=True, seconds=10)
        assert dialed.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        dialed.writer.close()
        await dialed.writer.wait_closed()


def make_client_certificate() -> ClientCertificate:
    """Make a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7)
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ClientCertificate(certificate.decode(), key_pem.decode())


@on_uvloop
async def test_shows_the_client_certificate_that_the_target_asks_for() -> None:
    authority, certificate = make_authority(), make_client_certificate()
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate.certificate_pem)
    seen = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async with listening(note, context) as listener:
        target = declare(listener, ca_pem=authority.certificate_pem)
        await say(Dialer(), target, certificate=certificate)
    assert seen == [ssl.PEM_cert_to_DER_cert(certificate.certificate_pem)]


@on_uvloop
async def test_says_so_when_the_client_certificate_is_none() -> None:
    async with listening() as listener:
        with refused(Obstacle.TLS, "certificates cannot be used"):
            await say(Dialer(), declare(listener), certificate=ClientCertificate("none", "none"))
        assert listener.connections == 0


@on_uvloop
async def test_keeps_contexts_but_those_with_client_certificates_to_itself() -> None:
    trust, ca_pem = Trust(), make_authority().certificate_pem
    assert trust.context(ca_pem) is trust.context(ca_pem)
    target = HttpTarget("api", "127.0.0.1", 443, (f"https://{HOST}",), ca_pem=ca_pem)
    one, other = Dialer(trust=trust), Dialer(trust=trust)
    certificate = make_client_certificate()
    kept = one._context(target, certificate)
    assert one._context(target, certificate) is kept
    assert kept is not other._context(target, certificate)
    assert kept is not trust.context(ca_pem)


@on_uvloop
async def test_refuses_an_address_that_is_not_declared() -> None:
    async with listening() as listener:
        with refused(Obstacle.ADDRESS, "127.0.0.1 is loopback; .*declare it"):
            await say(Dialer(answering(["127.0.0.1"])), declare(listener, HOST), opened=False)
        assert listener.connections == 0


@on_uvloop
async def test_connects_there_when_its_network_is_declared() -> None:
    async with listening() as listener:
        target = declare(listener, HOST, networks=("127.0.0.0/8",))
        assert await say(Dialer(answering(["127.0.0.1"])), target, opened=False) == b"hello"


@on_uvloop
async def test_refuses_all_when_one_of_the_addresses_may_not_be_reached() -> None:
    async with listening() as listener:
        for answer in (["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"]):
            with refused(Obstacle.ADDRESS):
                await say(Dialer(answering(answer)), declare(listener, HOST), opened=False)
        assert listener.connections == 0


@on_uvloop
async def test_connects_to_what_was_checked_when_a_name_server_rebinds() -> None:
    """The second answer is the attack; it is never asked for within one connection."""
    async with listening() as listener:
        target = declare(listener, HOST, networks=("127.0.0.1/32",))
        names = answering(["127.0.0.1"], ["127.0.0.2"])
        assert await say(Dialer(names), target, opened=False) == b"hello"
        with refused(Obstacle.ADDRESS, r"127\.0\.0\.2 is loopback"):
            await say(Dialer(names), target, opened=False)


@on_uvloop
async def test_takes_the_next_address_when_one_does_not_accept() -> None:
    async with listening() as listener:
        target = declare(listener, HOST, networks=("127.0.0.0/8",))
        assert await say(Dialer(answering(["127.0.0.2", "127.0.0.1"])), target, opened=False) == b"hello"


@on_uvloop
async def test_leaves_time_for_the_next_address_when_one_says_nothing() -> None:
    """A queue that is full drops what comes, as a firewall does."""
    async with listening() as listener:
        target = declare(listener, HOST, networks=("127.0.0.0/8",))
        with socket.socket() as deaf, contextlib.ExitStack() as callers:
            deaf.bind(("127.0.0.2", listener.port))
            deaf.listen(0)
            for _ in range(3):
                caller = callers.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(deaf.getsockname())
            names = answering(["127.0.0.2", "127.0.0.1"])
            assert await say(Dialer(names), target, opened=False, seconds=4) == b"hello"


@on_uvloop
async def test_tells_which_address_did_not_accept() -> None:
    target = HttpTarget("api", "127.0.0.1", 1, (f"http://{HOST}",))
    with pytest.raises(DialFailed, match=r"127\.0\.0\.1:1 does not accept: Connection refused") as caught:
        await say(Dialer(), target, opened=False)
    assert (caught.value.kind, caught.value.address) == (Obstacle.CONNECT, "127.0.0.1:1")


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "127.0.0.1.", "::ffff:127.0.0.1"])
@on_uvloop
async def test_refuses_hosts_in_odd_spellings_before_any_lookup(host: str) -> None:
    asked = []
    names = Names(lambda *question: asked.append(question) or [])
    with refused(Obstacle.HOST):
        await say(Dialer(names), HttpTarget("api", host, 80, (f"http://{HOST}",), networks=("0.0.0.0/0",)))
    assert asked == []


@on_uvloop
async def test_looks_nothing_up_for_an_address() -> None:
    asked = []
    async with listening() as listener:
        names = Names(lambda *question: asked.append(question) or [])
        assert await say(Dialer(names), declare(listener), opened=False) == b"hello"
    assert asked == []


@on_uvloop
async def test_tells_of_a_name_that_is_not_there() -> None:
    with refused(Obstacle.NAME, "nowhere.invalid cannot be looked up"):
        await say(Dialer(), HttpTarget("api", "nowhere.invalid", 80, (f"http://{HOST}",)), opened=False)


@on_uvloop
async def test_gives_up_on_a_target_that_accepts_and_says_nothing() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with listening(stall) as listener:
        target = declare(listener, ca_pem=make_authority().certificate_pem)
        with refused(Obstacle.TIME):
            await say(Dialer(), target, seconds=0.2)
    gc.collect()  # warns of what is still open


@contextlib.contextmanager
def stalling() -> Iterator[Names]:
    """A resolver that does not answer for the host "stalled.example" until the end."""
    go_on = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host == "stalled.example":
            go_on.wait(60)
        return ["127.0.0.1"]

    try:
        yield Names(resolve)
    finally:
        go_on.set()


@on_uvloop
async def test_answers_others_while_a_name_server_stalls() -> None:
    with stalling() as names:
        async with listening() as listener:
            stalled = declare(listener, "stalled.example")
            for _ in range(6):
                with refused(Obstacle.TIME):
                    await say(Dialer(names), stalled, opened=False, seconds=0.05)
            assert dict(names._busy) == {"stalled.example": 4}
            target = declare(listener, HOST, networks=("127.0.0.0/8",))
            assert await say(Dialer(names), target, opened=False) == b"hello"


@on_uvloop
async def test_looks_up_a_name_for_many_at_once_by_turns() -> None:
    lock, busy, most = threading.Lock(), 0, 0

    def resolve(host: str, port: int) -> list[str]:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1
        return ["127.0.0.1"]

    names = Names(resolve)
    found = await asyncio.gather(*(names.look_up(HOST, 80) for _ in range(40)))
    assert found == [["127.0.0.1"]] * 40
    assert most <= 4


@on_uvloop
async def test_starts_no_lookup_when_too_many_stall() -> None:
    go_on = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        go_on.wait(60)
        return []

    names = Names(resolve)
    waiting = [asyncio.create_task(names.look_up(f"h{number % 16}.example", 80)) for number in range(64)]
    await asyncio.sleep(0)
    with refused(Obstacle.NAME, "too many lookups"):
        await names.look_up(HOST, 80)
    go_on.set()
    await asyncio.gather(*waiting)


@on_uvloop
async def test_forgets_lookups_that_have_ended() -> None:
    with stalling() as names:
        waiting = asyncio.create_task(names.look_up("stalled.example", 80))
        await names.look_up(HOST, 80)
        assert dict(names._busy) == {"stalled.example": 1}
    assert await waiting == ["127.0.0.1"]
    assert not names._busy


AS_THE_CHILD_RUNS = """
import ctypes, os, sys, uvloop
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.authority import Leaves, make_authority
from sandboxes.proxy.dialing import Dialer, load_ahead
from tests.sandboxes.proxy.loopback import listening, server_context

async def main():
    authority = make_authority()
    async with listening(context=server_context(authority)) as listener:
        target = HttpTarget("api", "localhost", listener.port, ("https://api.example",),
            ca_pem=authority.certificate_pem, networks=("127.0.0.0/8", "::1/128"))
        dialed = await Dialer().dial(target, "api.example", opened=True, seconds=30)
        print("dialed", dialed.address.rpartition(":")[0])
        dialed.writer.transport.abort()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is loaded late")

load_ahead()
os.setgroups([]); os.setgid(123456); os.setuid(123456)
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
sys.meta_path.insert(0, Refuse())
uvloop.run(main())
"""


def test_works_without_rights_a_disk_or_anything_left_to_load() -> None:
    root = Path(__file__).parents[3]
    made = subprocess.run(
        [sys.executable, "-c", AS_THE_CHILD_RUNS],
        cwd=root,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.stdout == "dialed 127.0.0.1\n", made.stderr
