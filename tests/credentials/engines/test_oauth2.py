"""Access tokens of a real authorization server: for the tool's own client, and on behalf of a subject."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from credentials.bootstrap.roles import define_role
from credentials.dev_engines import put_client
from credentials.dev_vault import DevVault
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.engines.oauth2 import engine
from credentials.engines.oauth2.assertion import JWS_NAMES, read_key
from credentials.errors import Cause, CredentialsUnavailable, PartUnavailable
from credentials.lease import AccessToken, CredentialWanted, Lease
from credentials.vault import VaultSession
from credentials.vetting import vet
from tests.credentials.engines.conftest import TAG
from tests.parts.token_server import Client, TokenServer

CLIENT = "crm client"
ROLE, SECRET, ISSUER = "crm", "a client secret: 100% + ümlaut?", "https://toolcrib.example.org"
WANTED = [CredentialWanted("crm", "oauth2", ROLE)]
KEY = f"toolcrib-sign/keys/oauth2_{ROLE}"
NOBODY = replace(TAG, subject="")
Install = Callable[..., Any]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "credentials")  # the command line silences it, in this process too


@pytest.fixture
def server(token_server: TokenServer) -> Iterator[TokenServer]:
    token_server.forget()
    yield token_server
    token_server.forget()


@pytest.fixture
def install(engines_vault: DevVault, server: TokenServer, session: VaultSession) -> Install:
    """Give Vault the role and the server its client, with the role's public key."""

    async def install(grant: str = "token_exchange", *, key: str = "ecdsa-p256", **changes: Any) -> None:
        by_key = changes.get("client_auth") == "private_key_jwt"
        fields = {"engine": "oauth2", "grant": grant, "token_url": server.token_url, "client_id": CLIENT}
        issuer = {"issuer": ISSUER} if grant == "token_exchange" else {}
        engines_vault.bootstrap(definitions=[define_role(ROLE, fields | issuer | {"key": key} | changes)])
        put_client(engines_vault, ROLE, server.token_url, "" if by_key else SECRET)
        keys = await read_public_keys(session) if by_key or issuer else {"keys": []}
        scopes = frozenset({"contacts.read", "notes.write"})
        server.clients[CLIENT] = Client("" if by_key else SECRET, keys, ISSUER, scopes)
        session._roles.forget()

    return install


@pytest.fixture
async def session(engines_vault: DevVault, vault_session: VaultSession) -> AsyncIterator[VaultSession]:
    yield vault_session
    with suppress(PartUnavailable):  # a role without a key
        engines_vault.write(f"{KEY}/config", deletion_allowed=True)
        engines_vault.delete(KEY)
    engines_vault.delete(f"toolcrib-kv/metadata/oauth2/{ROLE}")


async def read_public_keys(session: VaultSession) -> dict[str, Any]:
    """As `toolcrib credentials jwks` does."""
    key = await session.ask("x", lambda api, token: read_key(api, token, "toolcrib-sign", f"oauth2_{ROLE}"))
    return key.to_jwks()


async def mint(session: VaultSession, tag=TAG) -> Lease:
    [lease] = await session.mint(tag, WANTED, 60)
    return lease


def payload_of(lease: Lease) -> AccessToken:
    assert isinstance(lease.payload, AccessToken)
    return lease.payload


async def token_of(session: VaultSession, tag=TAG) -> str:
    lease = await mint(session, tag)
    await session.end(lease)
    return payload_of(lease).token.reveal()


async def find_problems(session: VaultSession) -> list[str]:
    engine = ENGINES["oauth2"]
    return await session.ask("x", lambda api, token: engine.find_problems(api, token, DEFAULT_MOUNTS, ROLE))


# --- what is asked ---
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_gets_a_token_as_the_tools_own_client(session, server, install, way) -> None:
    await install("client_credentials", client_auth=way, scope="contacts.read", audience="https://crm")
    issued = server.look_up(await token_of(session))
    assert (issued["scope"], issued["aud"], "sub" in issued) == ("contacts.read", "https://crm", False)


@pytest.mark.parametrize("key", [kind for kind in JWS_NAMES if kind not in ("rsa-3072", "rsa-4096")])
async def test_gets_a_token_on_behalf_of_the_subject(session, server, install, key) -> None:
    await install(key=key)
    issued = server.look_up(await token_of(session))
    assert (issued["sub"], issued["act"]) == ("maria", {"sub": "refund-desk"})
    assert issued["tenant"] == "acme"


async def test_binds_the_assertion_to_the_server_the_call_and_a_minute(session, server, install) -> None:
    await install()
    [issued] = [server.issued[await token_of(session)]]
    claims = issued.claims
    assert (claims["iss"], claims["aud"]) == (ISSUER, server.token_url)
    assert claims["jti"] == f"{TAG.call_id}.crm"
    assert claims["exp"] - claims["iat"] == 60


async def test_uses_an_assertion_once(session, server, install) -> None:
    await install()
    await token_of(session)
    with pytest.raises(CredentialsUnavailable, match="invalid_grant"):
        await mint(session)  # the same call again: the server knows the assertion's id
    assert server.look_up(await token_of(session, replace(TAG, call_id="another")))["sub"] == "maria"


async def test_signs_with_the_newest_version_of_the_key(session, server, install, engines_vault) -> None:
    await install()
    engines_vault.write(f"{KEY}/rotate")
    with pytest.raises(CredentialsUnavailable, match="invalid_grant"):
        await mint(session)
    server.clients[CLIENT].keys = await read_public_keys(session)
    assert len(server.clients[CLIENT].keys["keys"]) == 2
    assert await token_of(session, replace(TAG, call_id="rotated"))


async def test_signs_with_the_version_that_the_role_names(session, server, install, engines_vault) -> None:
    await install(key_version=1)
    engines_vault.write(f"{KEY}/rotate")
    assert await token_of(session)  # what the server does not know yet is not used yet
    await install(key_version=3)
    with pytest.raises(CredentialsUnavailable, match="its key has no version 3"):
        await mint(session)


async def test_takes_both_ways_of_the_key_in_one_request(session, server, install) -> None:
    await install(client_auth="private_key_jwt")
    assert server.look_up(await token_of(session, replace(TAG, call_id="both")))["sub"] == "maria"
    assert "client_secret" not in server.forms()[-1]


async def test_refuses_a_call_without_a_subject_before_anybody_is_asked(session, server, install) -> None:
    await install()
    with pytest.raises(CredentialsUnavailable, match="an identity that names the user") as caught:
        await mint(session, NOBODY)
    assert "on nobody's" in caught.value.own_words
    assert (server.asked, caught.value.owed) == ([], [])


async def test_needs_no_subject_for_its_own_client(session, server, install) -> None:
    await install("client_credentials")
    assert server.look_up(await token_of(session, NOBODY))["client_id"] == CLIENT


async def test_tells_vaults_audit_nobodys_name(session, server, install, engines_vault) -> None:
    await install()
    tag = replace(TAG, subject="maria-in-no-audit", agent="agent-in-no-audit", call_id="quiet")
    assert server.issued[await token_of(session, tag)].claims["sub"] == tag.subject
    assert "-in-no-audit" not in engines_vault.audit_log.read_text()


# --- the length and the end ---
async def test_ends_with_the_token_at_the_latest(session, server, install) -> None:
    await install("client_credentials")
    server.lifetime_seconds = 7
    lease = await mint(session)
    assert (lease.expires - lease.minted).total_seconds() == 7
    assert payload_of(lease).expires >= lease.expires
    await session.end(lease)


async def test_revokes_the_token_with_the_call(session, server, install) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    lease = await mint(session)
    token = payload_of(lease).token.reveal()
    assert server.look_up(token)["active"]
    await session.end(lease)
    assert not server.look_up(token)["active"]


async def test_revokes_a_token_that_several_calls_got_with_the_last_of_them(
    session, server, install, caplog
) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    server.repeats = True
    first, second = await mint(session), await mint(session, replace(TAG, call_id="another"))
    token = payload_of(first).token.reveal()
    assert payload_of(second).token.reveal() == token
    assert caplog.text.count("gives one access token to several calls") == 1
    assert await vet(session, NOBODY, WANTED) == {}  # a bundle is registered meanwhile
    await session.end(first)
    await session.end(first)
    assert server.look_up(token)["active"]
    await session.end(second)
    assert not server.look_up(token)["active"]


async def test_takes_no_token_that_is_being_revoked_or_just_was(session, server, install) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    first = await mint(session)
    token = payload_of(first).token.reveal()
    server.repeats = True
    server.revokes_late = True
    ending = asyncio.create_task(session.end(first))
    while not server.forms("/revoke"):
        await asyncio.sleep(0.005)
    minting = asyncio.create_task(mint(session, replace(TAG, call_id="another")))
    while len(server.forms()) < 2:
        await asyncio.sleep(0.005)
    server.revoke_now.set()
    await ending
    second = await minting
    assert payload_of(second).token.reveal() != token
    assert server.look_up(payload_of(second).token.reveal())["active"]
    assert not server.look_up(token)["active"]
    await session.end(second)


async def test_revokes_as_a_client_that_proves_itself_by_its_key(session, server, install) -> None:
    await install("client_credentials", client_auth="private_key_jwt", revocation_url=server.revocation_url)
    assert not server.look_up(await token_of(session))["active"]


async def test_revokes_where_the_key_signed_for_the_subject_before(session, server, install) -> None:
    await install(client_auth="private_key_jwt", revocation_url=server.revocation_url)
    assert not server.look_up(await token_of(session, replace(TAG, call_id="signed-before")))["active"]


@pytest.mark.parametrize("trouble", ["silent", "broken"])
async def test_ends_without_the_server(session, server, install, trouble, caplog, engines_vault) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    lease = await mint(session)
    server.hold = frozenset({"/revoke"}) if trouble == "silent" else frozenset()
    server.bend = lambda path, _, text: (503, text, {})
    await session.end(lease)
    await session.end(lease)
    [told] = [one for one in caplog.records if one.message == "access token not revoked"]
    assert (told.__dict__["call_id"], told.__dict__["role"]) == (TAG.call_id, ROLE)
    assert told.__dict__["expires"] == payload_of(lease).expires.isoformat(timespec="seconds")
    assert (len(server.forms("/revoke")), engines_vault.count_tokens()) == (1, 0)


@pytest.mark.parametrize("change", [{"scope": "contacts.read admin"}, {"expires_in": -1}])
async def test_ends_a_token_that_it_does_not_take(session, server, install, change) -> None:
    await install("client_credentials", scope="contacts.read", revocation_url=server.revocation_url)
    server.bend = lambda path, status, text: (
        status,
        json.dumps(json.loads(text) | change).encode() if path == "/token" else text,
        {},
    )
    with pytest.raises(CredentialsUnavailable):
        await mint(session)
    [token] = server.issued
    assert not server.look_up(token)["active"]


async def test_ends_whatever_the_server_makes_of_its_end(
    session, server, install, caplog, engines_vault, monkeypatch
) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    lease = await mint(session)

    async def fail(*_: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(engine, "post_form", fail)
    await session.end(lease)
    [record] = [one for one in caplog.records if "not revoked" in one.message]
    assert record.__dict__["cause"] == "it could not be asked (RuntimeError)"
    assert engines_vault.count_tokens() == 0


async def test_ends_in_time_while_vault_signs_nothing(session, server, install, caplog, monkeypatch) -> None:
    await install("client_credentials", client_auth="private_key_jwt", revocation_url=server.revocation_url)
    lease = await mint(session)

    async def stall(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "sign_assertion", stall)
    await session.end(lease)
    [record] = [one for one in caplog.records if "not revoked" in one.message]
    assert record.__dict__["cause"] == "it could not be asked (TimeoutError)"


async def test_asks_for_no_revocation_where_the_role_names_no_place(session, server, install) -> None:
    await install("client_credentials")
    assert server.look_up(await token_of(session))["active"]


async def test_leaves_vault_to_others_while_the_server_is_slow(session, server, install, monkeypatch) -> None:
    monkeypatch.setattr(session._rooms, "_most", 1)
    await install("client_credentials")
    async with session._rooms.of(ROLE):
        assert await session.ask("x", lambda api, token: api.is_session_alive(token))


# --- vetting ---
async def test_proves_the_secret_before_registration_and_ends_what_it_got(session, server, install) -> None:
    await install("client_credentials", revocation_url=server.revocation_url)
    assert await vet(session, NOBODY, WANTED) == {}
    assert [issued.is_revoked for issued in server.issued.values()] == [True]
    server.clients[CLIENT].secret = "another one"
    problems = await vet(session, NOBODY, WANTED)
    assert "invalid_client" in problems["crm"]


async def test_asks_for_nobodys_token_before_registration(session, server, install) -> None:
    await install()
    assert await vet(session, NOBODY, WANTED) == {}
    assert server.asked == []


async def test_warns_of_tokens_that_outlast_every_call(session, server, install, caplog) -> None:
    await install("client_credentials")
    server.lifetime_seconds = 3601
    with caplog.at_level(logging.WARNING):
        await vet(session, NOBODY, WANTED)
    assert "access tokens outlast every call" in caplog.text


async def test_registers_nothing_while_the_server_is_away(session, server, install) -> None:
    await install("client_credentials")
    server.bend = lambda path, status, text: (503, b"", {})
    with pytest.raises(CredentialsUnavailable):
        await vet(session, NOBODY, WANTED)


# --- roles ---
async def test_says_what_is_missing(session, server, install, engines_vault) -> None:
    fields = {"engine": "oauth2", "grant": "client_credentials", "token_url": server.token_url}
    plan = engines_vault.bootstrap(definitions=[define_role(ROLE, {**fields, "client_id": "x"})])
    assert "vault kv put -mount=toolcrib-kv oauth2/crm token_url=" in str(plan.problems)
    [problem] = await find_problems(session)
    assert "its secret is not there" in problem and "client_secret=-" in problem


async def test_finds_nothing_wrong_with_a_good_role(session, install) -> None:
    await install()
    assert await find_problems(session) == []
    assert await session.check(WANTED) == []


async def test_sees_a_key_that_could_leave_vault(session, install, engines_vault) -> None:
    await install()
    engines_vault.write(f"{KEY}/config", exportable=True)
    assert any("the key could leave Vault" in text for text in await find_problems(session))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"client_secret": SECRET}, 'it has no "token_url"'),
        ({"token_url": "https://elsewhere.example.org/token", "client_secret": SECRET}, "another server"),
        ({"token_url": "OURS"}, 'it has no "client_secret"'),
        ({"token_url": "OURS", "client_secret": "elevenchars"}, "shorter than 12"),
        ({"token_url": "OURS", "client_secret": 123456789012}, "is no string"),
        ({"token_url": "OURS", "client_secret": f"{SECRET}\n"}, "has a line end"),
        ({"token_url": "OURS", "client_secret": SECRET, "scope": "all"}, 'it has a "scope"'),
    ],
)
async def test_refuses_a_secret_that_is_not_fit(
    session, server, install, engines_vault, values, words
) -> None:
    await install("client_credentials")
    ours = {key: server.token_url if value == "OURS" else value for key, value in values.items()}
    engines_vault.write(f"toolcrib-kv/data/oauth2/{ROLE}", data=ours)
    with pytest.raises(CredentialsUnavailable, match=words) as caught:
        await mint(session)
    assert (caught.value.cause, server.asked) == (Cause.ROLE_UNSAFE, [])
    assert SECRET not in str(caught.value) and "elevenchars" not in str(caught.value)
