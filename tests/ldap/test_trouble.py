"""Answers that are lost, a directory that refuses Vault itself, a server without the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from credentials.dev_vault import DevVault
from credentials.errors import Cause, CredentialsUnavailable
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault import VaultSession
from tests.credentials.hooked import open_hooked
from tests.ldap.conftest import GUEST, REPORTER, TAG, wanted, wanted_static
from tests.ldap.slapd import STATIC_DN, VAULT_DN, DevSlapd


def lose(*paths: str) -> Callable[[str, str], None]:
    """Lose the answers from paths that begin so."""

    def after(_method: str, path: str) -> None:
        if path.startswith(paths):
            raise VaultFault("no answer", Cause.TIMEOUT)

    return after


async def wait_for(condition: Callable[[], bool]) -> None:
    """Wait, because Vault ends what hangs under a token in its own time."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.05)


async def test_leaves_no_user_when_the_answer_is_lost(vault, slapd) -> None:
    session = await open_hooked(vault, lose(f"ldap/creds/{GUEST}"))
    with pytest.raises(CredentialsUnavailable) as caught:
        await session.mint(TAG, wanted(), 60)
    await session.close()
    assert (caught.value.cause, caught.value.owed) == (Cause.TIMEOUT, [])
    await wait_for(lambda: slapd.list_users() == [])


async def test_owes_a_user_whose_answer_and_end_are_lost(vault, session, slapd) -> None:
    losing = await open_hooked(vault, lose(f"ldap/creds/{GUEST}", "auth/token/lookup-accessor"))
    with pytest.raises(CredentialsUnavailable) as caught:
        await losing.mint(TAG, wanted(), 60)
    [owed] = caught.value.owed
    assert (owed.lease_id, owed.engine, owed.role) == (f"unknown/{owed.accessor}", "ldap", GUEST)
    await session.end(owed)
    await losing.close()
    await wait_for(lambda: slapd.list_users() == [])


async def test_changes_a_password_whose_answer_was_lost(vault, slapd) -> None:
    read = f"ldap/static-cred/{REPORTER}"
    captured = Secret(vault.read(read)["data"]["password"])
    session = await open_hooked(vault, lose(read))
    with pytest.raises(CredentialsUnavailable) as caught:
        await session.mint(TAG, wanted_static(), 60)
    await session.close()
    assert (caught.value.owed, slapd.can_bind(STATIC_DN, captured)) == ([], False)


async def test_mints_after_all_when_the_directory_refused_vault_for_a_moment(vault, slapd) -> None:
    right = set_vaults_password(slapd, Secret("another-one-than-vault-has"))
    tries: list[str] = []

    def let_vault_in_again(_method: str, path: str) -> None:
        if path.startswith("ldap/creds/"):
            tries.append(path)
            set_vaults_password(slapd, right)

    session = await open_hooked(vault, let_vault_in_again)
    [lease] = await session.mint(TAG, wanted(), 60)
    assert (len(tries), slapd.list_users()) == (2, [lease.username])
    await session.close()


async def test_tries_four_times_and_no_more(vault, slapd) -> None:
    right = set_vaults_password(slapd, Secret("another-one-than-vault-has"))
    tries: list[str] = []
    session = await open_hooked(
        vault, lambda _, path: tries.append(path) if path.startswith("ldap/creds/") else None
    )
    with pytest.raises(CredentialsUnavailable, match="refused Vault again and again") as caught:
        await session.mint(TAG, wanted(), 60)
    set_vaults_password(slapd, right)
    await session.close()
    assert (caught.value.cause, caught.value.owed, len(tries)) == (Cause.NOTHING_MADE, [], 4)


async def test_says_that_a_server_has_no_such_engine(tmp_path: Path) -> None:
    with DevVault(tmp_path) as newer:
        newer.install_tool_policy("ldap", GUEST)
        session = VaultSession(newer.address, newer.login)
        await session.open()
        with pytest.raises(CredentialsUnavailable, match="toolcrib vault check"):
            await session.mint(TAG, wanted(), 60)
        findings = [*await session.check(wanted()), *await session.check(wanted_static())]
        await session.close()
    assert [finding.subject for finding in findings] == ["Vault's engine ldap", "Vault's engine ldap_static"]
    assert all("this Vault does not have it" in finding.problem for finding in findings)


def set_vaults_password(slapd: DevSlapd, password: Secret) -> Secret:
    """Give Vault's own user in the directory another password; returns the one that Vault has."""
    change = f"dn: {VAULT_DN}\nchangetype: modify\nreplace: userPassword\nuserPassword: {password.reveal()}\n"
    slapd.change(change)
    return slapd.vault_password
