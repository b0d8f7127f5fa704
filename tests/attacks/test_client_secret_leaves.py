"""Attack: somebody wants an OAuth2 client's secret, or an assertion that says they are somebody else.

A server that the secret is shown to sends us on to another one; somebody who may write metadata in Vault, and
read no secret, names another server; a tool asks by the engines kv and transit for what belongs to oauth2.
Each control gets the secret without the measure in question.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import requests

from credentials.bootstrap.roles import define_role
from credentials.dev_engines import put_client
from credentials.dev_vault import DevVault
from credentials.errors import CredentialsUnavailable
from credentials.lease import CallTag, CredentialWanted
from credentials.policies import tool_policy_name
from credentials.vault import VaultSession
from tests.parts.token_server import Client, TokenServer

ROLE, SECRET = "leaves", "a-secret-that-must-not-leave"
TAG = CallTag("call-1", "acme", "staging", "5e3c", "maria", "refund-desk")
WANTED = [CredentialWanted("crm", "oauth2", ROLE)]


@pytest.fixture
def good() -> Iterator[TokenServer]:
    """The server that the operator named."""
    with TokenServer() as server:
        server.clients["toolcrib"] = Client(SECRET)
        yield server


@pytest.fixture
def thief() -> Iterator[TokenServer]:
    """Another server, which keeps what it is shown."""
    with TokenServer() as server:
        yield server


@pytest.fixture
async def session(
    dev_vault: DevVault, vault_session: VaultSession, good: TokenServer
) -> AsyncIterator[VaultSession]:
    dev_vault.bootstrap(definitions=[define_role(ROLE, role_at(good))])
    put_client(dev_vault, ROLE, good.token_url, SECRET)
    yield vault_session


def role_at(server: TokenServer) -> dict[str, str]:
    url = {"token_url": server.token_url, "client_auth": "client_secret_post"}
    return {"engine": "oauth2", "grant": "client_credentials", "client_id": "toolcrib", **url}


def redirect(to: TokenServer):
    """Send who asks to another server, with all that they sent."""
    return lambda *_: (307, b"", {"Location": to.token_url})


def told(server: TokenServer) -> str:
    return f"{server.asked} {server.headers}"


async def test_a_redirect_gets_the_secret_from_a_client_that_follows_it(good, thief) -> None:
    good.bend = redirect(thief)
    form = {"client_id": "toolcrib", "client_secret": SECRET}
    async with aiohttp.ClientSession() as careless, careless.post(good.token_url, data=form):
        assert SECRET in told(thief)


async def test_a_redirect_gets_nothing_from_us(session, good, thief) -> None:
    good.bend = redirect(thief)
    with pytest.raises(CredentialsUnavailable, match="is not followed"):
        await session.mint(TAG, WANTED, 60)
    assert SECRET in told(good) and thief.asked == []


async def test_other_metadata_get_the_secret_nowhere(session, dev_vault, thief) -> None:
    changed = {name: value for name, value in role_at(thief).items() if name != "engine"}
    dev_vault.write(f"toolcrib-kv/metadata/oauth2/{ROLE}", custom_metadata=changed)
    with pytest.raises(CredentialsUnavailable, match="would be shown to another server"):
        await session.mint(TAG, WANTED, 60)
    assert thief.asked == []


async def test_other_metadata_would_get_it_if_the_secret_did_not_name_its_server(
    session, dev_vault, thief
) -> None:
    dev_vault.bootstrap(definitions=[define_role(ROLE, role_at(thief))])
    put_client(dev_vault, ROLE, thief.token_url, SECRET)
    with pytest.raises(CredentialsUnavailable):
        await session.mint(TAG, WANTED, 60)
    assert SECRET in told(thief)


@pytest.mark.parametrize(
    ("engine", "role"), [("kv", f"oauth2/{ROLE}"), ("transit", f"oauth2_{ROLE}"), ("oauth2", f"../{ROLE}")]
)
async def test_no_tool_asks_for_it_by_another_engine(session, engine, role) -> None:
    with pytest.raises(CredentialsUnavailable, match="is no role name"):
        await session.mint(TAG, [CredentialWanted("crm", engine, role)], 60)


async def test_a_child_signs_and_reads_for_its_own_role_alone(session, dev_vault, good) -> None:
    issuer = {"grant": "token_exchange", "issuer": "https://toolcrib.example.org"}
    roles = [define_role(name, role_at(good) | issuer) for name in (ROLE, "leaves-not")]
    dev_vault.bootstrap(definitions=roles)
    put_client(dev_vault, "leaves-not", good.token_url, SECRET)
    made = dev_vault.write("auth/token/create", policies=[tool_policy_name("oauth2", ROLE)], ttl="60s")
    assert ask(dev_vault, made["auth"]["client_token"], ROLE) == [200, 200]
    assert ask(dev_vault, made["auth"]["client_token"], "leaves-not") == [403, 403]
    dev_vault.write("auth/token/revoke", token=made["auth"]["client_token"])


def ask(vault: DevVault, token: str, role: str) -> list[int]:
    """Read the secret and sign with the key of a role; returns the statuses."""
    base, headers = f"{vault.address}/v1", {"X-Vault-Token": token}
    body: Any = {"input": base64.b64encode(b"x").decode(), "key_version": 1}
    read = requests.get(f"{base}/toolcrib-kv/data/oauth2/{role}", headers=headers, timeout=10)
    signed = requests.post(f"{base}/toolcrib-sign/sign/oauth2_{role}", headers=headers, json=body, timeout=10)
    return [read.status_code, signed.status_code]


async def test_a_subject_is_nothing_that_a_call_can_choose(session, dev_vault, good) -> None:
    """What is asked for says the call's own subject; with none there is no assertion at all."""
    fields = role_at(good) | {"grant": "token_exchange", "issuer": "https://toolcrib.example.org"}
    dev_vault.bootstrap(definitions=[define_role(ROLE, fields)])
    session._roles.forget()
    with pytest.raises(CredentialsUnavailable, match="on nobody's"):
        await session.mint(replace(TAG, subject=""), WANTED, 60)
    assert good.asked == []
