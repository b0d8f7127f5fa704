"""What holds for a credential of every engine."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.lease import (
    NO_LEASE,
    UNKNOWN_LEASE,
    AccessToken,
    ClientCertificate,
    KeyValues,
    Signer,
    SshLogin,
    UsernamePassword,
)
from credentials.policies import TOKEN_ROLE
from credentials.secret import Secret
from credentials.transport import AsyncTransport, VaultFault
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.engines.conftest import (
    BROKEN,
    NAMES,
    NONE,
    TAG,
    A,
    B,
    Ids,
    ask_as,
    make_child,
    role_of,
    secret_path,
    wanted,
)
from tests.parts.vault import TARGET

PAYLOADS = {
    "database": UsernamePassword,
    "database_static": UsernamePassword,
    "kv": KeyValues,
    "pki": ClientCertificate,
    "ssh": SshLogin,
    "transit": Signer,
    "oauth2": AccessToken,
}
BODIES = {
    "pki": {"csr": "x", "common_name": "x", "ttl": "60s"},
    "ssh": {"public_key": "x", "ttl": "60s"},
    "transit": {"input": "eA=="},
}
LAST_ANSWERS = {secret_path(name, A) for name in NAMES} | {f"toolcrib-sign/keys/{role_of('transit')}"}
pytestmark = pytest.mark.parametrize("engine", NAMES)


class CutTransport(AsyncTransport):
    """A way to Vault that breaks with the answer that brings a child its credential, and stays broken."""

    has_child = is_cut = False

    async def ask(self, method, path, token, body=None, *, repeatable=True):
        """Carry the request out, and lose the answer."""
        answer = {} if self.is_cut else await super().ask(method, path, token, body, repeatable=repeatable)
        self.has_child |= path.startswith("auth/token/create/")
        self.is_cut |= self.has_child and path in LAST_ANSWERS
        if self.is_cut:
            raise VaultFault("no answer", Cause.TIMEOUT)
        return answer


@pytest.fixture
async def session(engines_vault, vault_session) -> VaultSession:
    return vault_session


@pytest.fixture
def child_token(engines_vault, session_token, engine) -> Secret:
    """A child token of role A."""
    return make_child(engines_vault, session_token, engine, A)


@pytest.fixture
async def cut_session(engines_vault) -> AsyncIterator[VaultSession]:
    """A session that loses Vault in the middle of its first mint."""
    tuning = SessionTuning(transport=CutTransport)
    session = VaultSession(engines_vault.address, engines_vault.login, tuning)
    await session.open()
    yield session
    token = session._session.token
    await session.close()
    engines_vault.write("auth/token/revoke", token=token.reveal())


async def test_mints_what_the_tool_gets(session, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    assert isinstance(lease.payload, PAYLOADS[engine])
    assert (lease.engine, lease.role, lease.credential) == (engine, role_of(engine), "thing")
    assert 0 < (lease.expires - lease.minted).total_seconds() <= 60


async def test_hides_what_must_not_leave(session, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    shown = f"{lease!r} {lease.owed()!r} {dataclasses.asdict(lease.owed())}"
    assert not [secret for secret in lease.secrets if secret.reveal() in shown]
    assert "PRIVATE KEY" not in shown
    assert bool(lease.secrets) is (engine != "transit")


async def test_ends_with_confirmation(session, engines_vault, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    assert await session.end(lease) >= lease.minted
    assert (engines_vault.count_tokens(), engines_vault.count_leases()) == (0, 0)
    assert session.live_leases() == []


async def test_ends_again(session, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    assert await session.end(lease) <= await session.end(lease)


async def test_ends_from_the_journals_ids_in_another_session(engines_vault, engine) -> None:
    first = VaultSession(engines_vault.address, engines_vault.login)
    await first.open()
    [lease] = await first.mint(TAG, wanted(engine), 60)
    second = VaultSession(engines_vault.address, engines_vault.login)
    await second.open()
    await second.end(Ids(lease.lease_id, lease.accessor, lease.engine, lease.role))
    await second.close()
    assert (engines_vault.count_tokens(), engines_vault.count_leases()) == (0, 0)
    await first.close()


async def test_names_what_has_no_lease_by_its_child(session, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    prefixes = ENGINES[engine].lease_prefixes(DEFAULT_MOUNTS)
    assert lease.lease_id.startswith(prefixes or f"{NO_LEASE}{engine}/{role_of(engine)}/{lease.accessor}")


async def test_refuses_a_role_that_vault_does_not_have(session, engine) -> None:
    with pytest.raises(CredentialsUnavailable, match=f"Vault has no .* {role_of(engine, NONE)}") as caught:
        await session.mint(TAG, wanted(engine, NONE), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.ROLE_UNSAFE, [])


async def test_refuses_a_role_that_is_not_fit(session, engine) -> None:
    with pytest.raises(CredentialsUnavailable) as caught:
        await session.mint(TAG, wanted(engine, BROKEN), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.ROLE_UNSAFE, [])


async def test_owes_what_was_made_when_the_answer_is_lost(
    cut_session, session, engines_vault, engine
) -> None:
    with pytest.raises(CredentialsUnavailable) as caught:
        await cut_session.mint(TAG, wanted(engine), 60)
    [owed] = caught.value.owed
    assert owed.lease_id.startswith((UNKNOWN_LEASE, NO_LEASE))
    assert engines_vault.count_tokens() == 1
    await session.end(owed)
    assert engines_vault.count_tokens() == 0


async def test_does_not_confirm_an_end_without_vault(cut_session, session, engine) -> None:
    [lease] = await session.mint(TAG, wanted(engine), 60)
    with pytest.raises(CredentialsUnavailable):
        await cut_session.mint(TAG, wanted(engine), 60)
    with pytest.raises(EndNotConfirmed):
        await cut_session.end(lease)


def test_gives_a_child_nothing_of_another_role(engines_vault, child_token, engine) -> None:
    others = [(name, which) for name in NAMES for which in (A, B, BROKEN) if (name, which) != (engine, A)]
    for name, which in others:
        assert_denied(engines_vault, child_token, secret_path(name, which))


def test_gives_a_child_nothing_else(engines_vault, child_token, engine) -> None:
    everything = ["sys/mounts", "sys/auth", "sys/policies/acl/toolcrib-broker", "sys/leases/lookup"]
    everything += ["transit/keys/toolcrib-acme", f"auth/token/create/{TOKEN_ROLE}", "auth/token/lookup-self"]
    everything += [
        f"toolcrib-pki/issue/{role_of('pki')}",
        f"database/rotate-role/{role_of('database_static')}",
    ]
    everything += [f"toolcrib-sign/export/signing-key/{role_of('transit')}", "toolcrib-ssh/config/ca"]
    for path in everything:
        assert_denied(engines_vault, child_token, path)


def test_gives_the_session_itself_no_credential(engines_vault, session_token, engine) -> None:
    for which in (A, B, BROKEN, NONE):
        assert_denied(engines_vault, session_token, secret_path(engine, which))


def test_gives_the_session_itself_nothing_that_leads_to_one(engines_vault, session_token, engine) -> None:
    leads = {
        "database": [
            f"database/config/{TARGET}",
            f"database/reset/{TARGET}",
            f"database/rotate-root/{TARGET}",
        ],
        "database_static": [f"database/config/{TARGET}", f"database/rotate-root/{TARGET}"],
        "kv": [f"toolcrib-kv/subkeys/{role_of(engine)}", f"toolcrib-kv/undelete/{role_of(engine)}"],
        "pki": [f"toolcrib-pki/issue/{role_of(engine)}", f"toolcrib-pki/sign-verbatim/{role_of(engine)}"],
        "ssh": [f"toolcrib-ssh/issue/{role_of(engine)}", f"toolcrib-ssh/creds/{role_of(engine)}"],
        "transit": [f"toolcrib-sign/{way}/{role_of(engine)}" for way in ("backup", "hmac", "verify")],
        "oauth2": [
            f"toolcrib-kv/subkeys/oauth2/{role_of(engine)}",
            f"toolcrib-sign/sign/oauth2_{role_of(engine)}",
        ],
    }
    for path in leads[engine]:
        assert_denied(engines_vault, session_token, path)


def test_lets_the_child_do_what_it_is_for(engines_vault, child_token, engine) -> None:
    """The control of the tests before: with these same means the child gets its own."""
    status, _ = ask_as(engines_vault, child_token, secret_path(engine, A), BODIES.get(engine))
    assert status == (400 if engine in ("pki", "ssh") else 200)  # allowed; the key in the body is none


def assert_denied(vault, token: Secret, path: str) -> None:
    """See that neither a read nor a write is allowed."""
    assert [ask_as(vault, token, path)[0], ask_as(vault, token, path, {"ttl": "60s"})[0]] == [403, 403], path
