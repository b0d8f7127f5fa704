"""An issuer's keys are at hand before they are needed, follow their rotation, and outlast an outage."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.app import utc_now
from broker.brakes import Brakes
from broker.errors import Refused
from broker.identity_settings import Identity, Issuer
from broker.stages.authenticate import Authenticator
from broker.tokens.documents import KeysUnavailable, fetch_keys
from broker.tokens.verifier import Tokens
from tests.broker.tokens.conftest import make_peer
from tests.parts.issuer import LocalIssuer, Mint, encode_part


class Clock:
    """Monotonic time that tests can turn."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Gate:
    """An authenticator that takes the tokens of a local issuer."""

    def __init__(self, issuer: LocalIssuer, **settings: Any) -> None:
        given = {
            "issuer": issuer.mint.issuer, "audiences": ["toolcrib"], "tenant": "shop", "agent_prefix": "id-",
            **({} if "jwks_url" in settings else {"discovery": True}), **settings,
        }  # fmt: skip
        identity = Identity.model_validate({"listen": "x:1", "issuers": [given]})
        self.clock = Clock()
        self.tokens = Tokens(identity, utc_now, self.clock)
        self.authenticate = Authenticator("x", ["shop"], utc_now, Brakes(), self.tokens)

    async def ask(self, token: str) -> str:
        """Do what the door does; returns the agent's name, or the reason of the refusal."""
        peer = make_peer(token)
        await self.authenticate.prepare(peer)
        try:
            return self.authenticate(peer).name
        except Refused as refusal:
            return refusal.reason_name


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer("/oauth2/default") as running:
        yield running


@asynccontextmanager
async def open_gate(issuer: LocalIssuer, **settings: Any):
    gate = Gate(issuer, **settings)
    async with gate.tokens:
        yield gate


async def test_finds_the_keys_by_discovery_before_the_first_token(issuer):
    async with open_gate(issuer) as gate:
        asked = list(issuer.asked)
        assert asked == ["/oauth2/default/.well-known/openid-configuration", "/keys"]
        assert await gate.ask(issuer.token()) == "id-desk-1"
        assert issuer.asked == asked


async def test_uses_a_new_key_at_once_and_an_old_one_no_more(issuer):
    async with open_gate(issuer) as gate:
        old = issuer.token()
        assert await gate.ask(old) == "id-desk-1"
        issuer.mint.rotate("k1", "k2")
        new = issuer.mint.sign(issuer.mint.claims(time.time()), key="k2")
        assert await gate.ask(new) == "id-desk-1"
        gate.clock.ahead += 6
        assert await gate.ask(old) != "id-desk-1"


async def test_asks_the_issuer_once_whatever_keys_tokens_name(issuer):
    async with open_gate(issuer) as gate:
        asked = len(issuer.asked)
        gate.clock.ahead += 6
        tokens = [
            issuer.mint.sign(issuer.mint.claims(time.time()), header={"kid": f"x{n}"}) for n in range(200)
        ]
        found = {await gate.ask(token) for token in tokens}
        assert found == {"TOKEN_INVALID", "TOKEN_KEYS_UNAVAILABLE"}
        assert len(issuer.asked) == asked + 2
        assert await gate.ask(issuer.token()) == "id-desk-1"


async def test_lets_those_who_wait_for_one_key_share_one_reading(issuer):
    async with open_gate(issuer) as gate:
        asked = len(issuer.asked)
        issuer.mint.rotate("k1", "k2")
        gate.clock.ahead += 6
        issuer.slow_seconds = 0.1
        tokens = [issuer.mint.sign(issuer.mint.claims(time.time(), jti=str(n)), key="k2") for n in range(20)]
        assert set(await asyncio.gather(*(gate.ask(token) for token in tokens))) == {"id-desk-1"}
        assert len(issuer.asked) == asked + 2


async def test_goes_on_while_the_issuer_is_down_and_then_says_so(issuer):
    async with open_gate(issuer, max_stale_seconds=100) as gate:
        issuer.down = True
        gate.clock.ahead += 99
        assert await gate.ask(issuer.token()) == "id-desk-1"
        gate.clock.ahead += 2
        assert await gate.ask(issuer.token()) == "TOKEN_KEYS_UNAVAILABLE"
        issuer.down = False
        gate.clock.ahead += 6
        assert await gate.ask(issuer.mint.sign(issuer.mint.claims(time.time()), header={"kid": "k9"})) == (
            "TOKEN_INVALID"
        )
        assert await gate.ask(issuer.token()) == "id-desk-1"


async def test_starts_while_the_issuer_is_down_and_takes_tokens_when_it_is_up(issuer):
    issuer.down = True
    async with open_gate(issuer) as gate:
        assert await gate.ask(issuer.token()) == "TOKEN_KEYS_UNAVAILABLE"
        issuer.down = False
        gate.clock.ahead += 6
        assert await gate.ask(issuer.token()) == "id-desk-1"


async def test_reads_the_keys_again_by_itself(issuer):
    async with open_gate(issuer, refresh_seconds=1) as gate:
        issuer.mint.rotate("k1", "k2")
        peer = make_peer(issuer.mint.sign(issuer.mint.claims(time.time()), key="k2"))
        with pytest.raises(Refused):
            gate.authenticate(peer)
        async with asyncio.timeout(10):
            while issuer.asked.count("/keys") < 3:
                await asyncio.sleep(0.02)
        assert gate.authenticate(peer).name == "id-desk-1"


def _redirect(path: str, status: int, body: bytes):
    return (302, b"", {"Location": "/keys"}) if path != "/keys" else (status, body, {})


def _other_issuer(path: str, status: int, body: bytes):
    return status, body.replace(b'"issuer": "', b'"issuer": "https://evil.example.org/'), {}


def _elsewhere(path: str, status: int, body: bytes):
    return status, body.replace(b'"jwks_uri": "http://127.0.0.1', b'"jwks_uri": "http://192.0.2.1'), {}


def _packed(_path: str, status: int, body: bytes):
    return status, gzip.compress(body), {"Content-Encoding": "gzip"}


BENT = {
    "packed": _packed,
    "a redirect": _redirect,
    "another issuer": _other_issuer,
    "keys over plain http elsewhere": _elsewhere,
    "no JSON": lambda _path, status, _body: (status, b"<html>", {}),
    "a list": lambda _path, status, _body: (status, b"[]", {}),
    "no keys": lambda path, status, body: (status, b'{"keys": []}' if path == "/keys" else body, {}),
    "keys twice": lambda path, status, body: (status, body.replace(b'"keys"', b'"keys": [], "keys"'), {}),
    "a flood": lambda path, status, body: (status, b" " * 600_000 + body, {}),
    "an error": lambda _path, _status, body: (500, body, {}),
    "nothing": lambda _path, _status, _body: (204, b"", {}),
}


@pytest.mark.parametrize("name", BENT)
async def test_believes_no_document_that_is_bent(issuer, name):
    settings = Gate(issuer).tokens._sources[issuer.mint.issuer].issuer
    assert (await fetch_keys(settings)).names == ["k1"]
    issuer.bend = BENT[name]
    with pytest.raises(KeysUnavailable):
        await fetch_keys(settings)


async def test_reads_keys_over_tls_of_a_server_that_it_can_check_only(tmp_path):
    certificate = make_certificate(tmp_path)
    with LocalIssuer(tls=certificate, host="localhost") as issuer:
        given = {"issuer": issuer.mint.issuer, "audiences": ["a"], "tenant": "shop", "agent_prefix": "x-"}
        checked = Issuer(**given, discovery=True, ca_file=certificate[0])
        assert (await fetch_keys(checked)).names == ["k1"]
        with pytest.raises(KeysUnavailable, match="certificate"):
            await fetch_keys(Issuer(**given, discovery=True))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost that signs itself."""
    certificate, key = folder / "issuer.pem", folder / "issuer.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_takes_no_key_that_an_issuer_does_not_serve(issuer):
    stranger = Mint(issuer.mint.issuer)
    async with open_gate(issuer, jwks_url=issuer.keys_url) as gate:
        assert await gate.ask(issuer.token()) == "id-desk-1"
        assert await gate.ask(stranger.sign(stranger.claims(time.time()))) == "TOKEN_INVALID"
        claims = encode_part({"iss": issuer.mint.issuer})
        token = f"{encode_part({'alg': 'ES256', 'kid': 'zz'})}.{claims}.AAAA"
        assert await gate.ask(token) == "TOKEN_INVALID"
