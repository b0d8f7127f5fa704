"""The session is kept alive, ends what hangs under it, and is opened again when Vault ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.logins import AppRole, Token
from credentials.secret import Secret
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.conftest import READ, TAG, wanted
from tests.parts.stopped import stopped


class UnsafeNoKeeper:
    """Keeps nothing alive, as a broker and a supervisor that both died."""

    async def keep(self, token: Token, on_lost: Callable[[], None]) -> None:
        """Do nothing."""

    def look(self) -> None:
        """Do nothing."""

    async def release(self) -> None:
        """Do nothing."""

    async def abandon(self) -> None:
        """Do nothing."""


async def test_keeps_its_session_longer_than_its_period(own_session, own_vault) -> None:
    [lease] = await own_session.mint(TAG, wanted(), 60)
    await asyncio.sleep(4)  # the period is 3 s
    assert own_vault.list_leases() == [lease.lease_id]
    assert not own_session.lost


async def test_loses_its_leases_when_nobody_renews_it(own_vault, notes) -> None:
    tuning = SessionTuning(keeper=lambda _: UnsafeNoKeeper())
    session = VaultSession(own_vault.address, own_vault.login, tuning)
    await session.open()
    await session.mint(TAG, wanted(), 60)
    await _wait_for(lambda: own_vault.count_leases() == 0 and notes.count_v_roles() == 0)
    await session.close()


async def test_ends_its_leases_and_itself_when_it_is_closed(vault, notes) -> None:
    session = VaultSession(vault.address, vault.login)
    await session.open()
    await session.mint(TAG, wanted(), 60)
    await session.close()
    assert (vault.count_leases(), vault.count_sessions(), notes.count_v_roles()) == (0, 0, 0)


async def test_logs_in_again_when_vault_ended_the_session(own_session, own_vault) -> None:
    await own_session.mint(TAG, wanted(), 60)
    _end_sessions(own_vault)
    with pytest.raises(CredentialsUnavailable, match="is being opened again") as caught:
        await own_session.mint(TAG, wanted(), 60)
    assert caught.value.cause is Cause.SESSION_LOST
    await _wait_for(lambda: own_vault.count_sessions() == 1)
    assert len(await own_session.mint(TAG, wanted(), 60)) == 1


async def test_confirms_no_end_with_a_session_that_vault_ended(own_session, own_vault) -> None:
    [lease] = await own_session.mint(TAG, wanted(), 60)
    _end_sessions(own_vault)
    with pytest.raises(EndNotConfirmed) as caught:
        await own_session.end(lease)
    assert caught.value.cause is Cause.DENIED
    await _wait_for(lambda: own_vault.count_sessions() == 1)
    await own_session.end(lease)


async def test_survives_a_stall_of_vault(own_session, own_vault) -> None:
    with stopped(own_vault.pid):
        await asyncio.sleep(1.5)
    await own_session.mint(TAG, wanted(), 60)
    assert not own_session.lost


async def test_refuses_to_open_with_a_wrong_secret_id(vault) -> None:
    session = VaultSession(vault.address, AppRole(vault.role_id, Secret("wrong")))
    with pytest.raises(CredentialsUnavailable, match="cannot log in: invalid role or secret ID"):
        await session.open()
    await session.close()


async def test_finds_nothing_wrong_with_what_it_needs(session) -> None:
    assert await session.check(wanted()) == []


async def test_finds_roles_and_policies_that_are_missing(session) -> None:
    findings = await session.check(wanted("notes-none"))
    assert [finding.subject for finding in findings] == [
        "Vault's database role notes-none",
        "Vault's policy toolcrib-tool-database-notes-none",
    ]
    assert all(finding.remedy for finding in findings)


async def test_finds_a_token_role_that_makes_orphans(own_session, own_vault) -> None:
    own_vault.write("auth/token/roles/toolcrib-call", orphan=True, allowed_policies_glob=["*"])
    findings = await own_session.check()
    assert [finding.problem.split()[0] for finding in findings] == ["allowed_policies_glob", "orphan"]


async def test_finds_a_policy_that_is_too_wide(own_session, own_vault) -> None:
    policy = 'path "database/creds/*" { capabilities = ["read"] }'
    own_vault.write(f"sys/policies/acl/toolcrib-tool-database-{READ}", policy=policy)
    [finding] = await own_session.check(wanted())
    assert "not exactly" in finding.problem


async def test_finds_that_vault_is_sealed(own_session, own_vault) -> None:
    own_vault.seal()
    findings = await own_session.check(wanted())
    assert findings and all("sealed" in finding.problem for finding in findings)
    own_vault.unseal()


def _end_sessions(vault) -> None:
    for token in vault.list_tokens():
        if "toolcrib-broker" in token["policies"]:
            vault.write("auth/token/revoke-accessor", accessor=token["accessor"])


async def _wait_for(condition) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.05)
