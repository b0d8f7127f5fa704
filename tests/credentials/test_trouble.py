"""With a Vault or a database in trouble there is no credential, a clear reason, and nothing left unowned."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from credentials.child_process import find_free_port
from credentials.dev_postgres import DevPostgres
from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.logins import AppRole
from credentials.secret import Secret
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.conftest import TAG, wanted
from tests.parts.stopped import stopped


async def test_refuses_to_open_where_nothing_listens() -> None:
    session = VaultSession(f"http://127.0.0.1:{find_free_port()}", AppRole(Secret("a"), Secret("b")))
    with pytest.raises(CredentialsUnavailable, match="is Vault running there") as caught:
        await session.open()
    assert caught.value.cause is Cause.UNREACHABLE
    await session.close()


async def test_refuses_to_mint_when_vault_is_sealed(own_session, own_vault) -> None:
    own_vault.seal()
    with pytest.raises(CredentialsUnavailable, match="unseal it") as caught:
        await own_session.mint(TAG, wanted(), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.SEALED, [])
    own_vault.unseal()


async def test_keeps_a_lease_owed_while_vault_is_sealed(own_session, own_vault, notes) -> None:
    [lease] = await own_session.mint(TAG, wanted(), 60)
    own_vault.seal()
    with pytest.raises(EndNotConfirmed) as caught:
        await own_session.end(lease)
    assert caught.value.cause is Cause.SEALED
    own_vault.unseal()
    await own_session.end(lease)
    assert notes.count_v_roles() == 0


async def test_refuses_to_mint_when_vault_stopped(own_session, own_vault) -> None:
    own_vault.stop()
    with pytest.raises(CredentialsUnavailable) as caught:
        await own_session.mint(TAG, wanted(), 60)
    assert caught.value.cause is Cause.UNREACHABLE


async def test_refuses_to_mint_when_vault_does_not_answer(own_session, own_vault) -> None:
    with stopped(own_vault.pid), pytest.raises(CredentialsUnavailable, match="within 1 s") as caught:
        await own_session.mint(TAG, wanted(), 60)
    assert caught.value.cause is Cause.TIMEOUT


async def test_leaves_no_login_when_the_database_answers_too_late(own_session, own_vault, notes) -> None:
    blocker = await asyncpg.connect(**notes.login())
    await blocker.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE")
    with pytest.raises(CredentialsUnavailable) as caught:
        await own_session.mint(TAG, wanted(), 60)
    await blocker.close()
    assert (caught.value.cause, caught.value.owed) == (Cause.TIMEOUT, [])
    await asyncio.sleep(0.5)
    assert (own_vault.count_leases(), own_vault.count_tokens(), notes.count_v_roles()) == (0, 0, 0)


async def test_gives_no_login_and_confirms_no_end_when_the_database_stopped(
    own_session, own_vault, tmp_path
) -> None:
    with DevPostgres(tmp_path / "own") as postgres:
        own_vault.connect_database("own-db", postgres)
        own_vault.install_role("own", "own-db", [])
        [lease] = await own_session.mint(TAG, wanted("own"), 60)
    with pytest.raises(CredentialsUnavailable, match="see that the target runs") as refused:
        await own_session.mint(TAG, wanted("own"), 60)
    assert (refused.value.cause, refused.value.owed) == (Cause.BACKEND, [])
    with pytest.raises(EndNotConfirmed, match="failed at the target") as unconfirmed:
        await own_session.end(lease)
    assert unconfirmed.value.cause is Cause.BACKEND


async def test_returns_as_owed_what_it_could_not_end(own_vault, notes) -> None:
    session = await _session_that_may_not_end(own_vault)
    with pytest.raises(CredentialsUnavailable) as caught:
        await session.mint(TAG, wanted() + wanted("notes-broken"), 60)
    assert sorted(owed.lease_id.split("/")[0] for owed in caught.value.owed) == ["database", "unknown"]
    own_vault.install_broker_policy()
    for owed in caught.value.owed:
        await session.end(owed)
    await session.close()
    assert (own_vault.count_leases(), notes.count_v_roles()) == (0, 0)


async def test_says_that_it_is_busy_when_no_request_ends(own_vault) -> None:
    tuning = SessionTuning(timeout_seconds=0.5, max_requests=1)
    session = VaultSession(own_vault.address, own_vault.login, tuning)
    await session.open()
    with stopped(own_vault.pid):
        results = await asyncio.gather(
            *(session.mint(TAG, wanted(), 60) for _ in range(3)), return_exceptions=True
        )
    assert Cause.OVERLOADED in [getattr(result, "cause", None) for result in results]
    await session.close()


async def _session_that_may_not_end(vault) -> VaultSession:
    """A session whose policy lost the right to end anything."""
    policy = vault.read("sys/policies/acl/toolcrib-broker")["data"]["policy"]
    for path in ("sys/leases/revoke", "auth/token/revoke-accessor"):
        policy = policy.replace(f'"{path}"', f'"lost/{path}"')
    vault.write("sys/policies/acl/toolcrib-broker", policy=policy)
    session = VaultSession(vault.address, vault.login, SessionTuning(timeout_seconds=1))
    await session.open()
    return session
