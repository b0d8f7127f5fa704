"""Vault's own password at a database gets another one that nobody knows; logins go on being made."""

from __future__ import annotations

import asyncpg
import pytest

from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.dev_vault import DevVault
from credentials.engines import DEFAULT_MOUNTS
from credentials.errors import Cause, CredentialsUnavailable
from credentials.rotation.passwords import rotate_database_user, rotate_directory_user, rotate_shared_login
from credentials.vault import CallTag, CredentialWanted, VaultSession
from credentials.vault_api import VaultFault
from tests.credentials.hooked import open_hooked
from tests.credentials.rotation.conftest import ROLE, TARGET

TAG, WANTED = CallTag("c", "t", "e", "d"), [CredentialWanted("notes", "database", ROLE)]
MOUNT = DEFAULT_MOUNTS["database"]


async def test_leaves_the_old_password_worthless(api, vault, postgres) -> None:
    login = postgres.login(VAULT_ROLE, postgres.vault_password)
    await (await asyncpg.connect(**login)).close()
    await rotate_database_user(api, vault.root_token, MOUNT, TARGET)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**login)


async def test_goes_on_making_logins(api, vault, postgres) -> None:
    await rotate_database_user(api, vault.root_token, MOUNT, TARGET)
    session = VaultSession(vault.address, vault.login)
    await session.open()
    [lease] = await session.mint(TAG, WANTED, 60)
    connection = await asyncpg.connect(**postgres.login(lease.username, lease.secrets[0]))
    await connection.close()
    await session.end(lease)
    await session.close()


async def test_says_what_it_did_and_no_password(api, vault) -> None:
    made = await rotate_database_user(api, vault.root_token, MOUNT, TARGET)
    assert made.done == (f"{VAULT_ROLE} at {TARGET} has a new password, which nobody but Vault knows",)


async def test_is_in_vaults_own_audit(api, vault) -> None:
    await rotate_database_user(api, vault.root_token, MOUNT, TARGET)
    assert f'"path":"database/rotate-root/{TARGET}"' in vault.audit_log.read_text()


async def test_refuses_a_target_that_vault_does_not_know(api, vault) -> None:
    with pytest.raises(VaultFault, match="no database target nowhere") as caught:
        await rotate_database_user(api, vault.root_token, MOUNT, "nowhere")
    assert caught.value.cause is Cause.UNKNOWN


async def test_refuses_a_directory_where_there_is_no_engine(api, vault) -> None:
    with pytest.raises(VaultFault):
        await rotate_directory_user(api, vault.root_token, "ldap")


async def test_refuses_a_shared_login_that_vault_does_not_know(api, vault) -> None:
    with pytest.raises(VaultFault, match="no static database role nobody"):
        await rotate_shared_login(api, vault.root_token, MOUNT, "database_static", "nobody")


class Refusal:
    """A database that lets Vault in again after so many tries."""

    def __init__(self, vault: DevVault, postgres: DevPostgres, until: int) -> None:
        self._postgres, self._until, self.tries = postgres, until, 0
        vault.write(f"database/config/{TARGET}", password="as-vault-has-it", verify_connection=False)
        self._set("another-one")

    def after(self, _method: str, path: str) -> None:
        if path.startswith("database/creds/"):
            self.tries += 1
            if self.tries == self._until:
                self.end()

    def end(self) -> None:
        self._set("as-vault-has-it")

    def _set(self, password: str) -> None:
        self._postgres.run_script(f"ALTER ROLE {VAULT_ROLE} PASSWORD '{password}';")


async def test_mints_after_all_when_the_database_refused_vault_for_a_moment(vault, postgres) -> None:
    refusal = Refusal(vault, postgres, until=1)
    session = await open_hooked(vault, refusal.after)
    [lease] = await session.mint(TAG, WANTED, 60)
    assert (refusal.tries, postgres.count_v_roles(), vault.count_tokens()) == (2, 1, 1)
    await session.end(lease)
    await session.close()


async def test_tries_a_second_time_and_no_third(vault, postgres) -> None:
    refusal = Refusal(vault, postgres, until=0)
    session = await open_hooked(vault, refusal.after)
    with pytest.raises(CredentialsUnavailable, match="refuses the password that Vault itself has") as caught:
        await session.mint(TAG, WANTED, 60)
    refusal.end()
    await session.close()
    assert (caught.value.cause, caught.value.owed, refusal.tries) == (Cause.LOCKED_OUT, [], 2)
    assert (postgres.count_v_roles(), vault.count_tokens()) == (0, 0)


async def test_does_not_try_again_what_may_have_made_a_login(vault, postgres) -> None:
    tries: list[str] = []

    def lose(_method: str, path: str) -> None:
        if path.startswith("database/creds/"):
            tries.append(path)
            raise VaultFault("no answer", Cause.TIMEOUT)

    session = await open_hooked(vault, lose)
    with pytest.raises(CredentialsUnavailable):
        await session.mint(TAG, WANTED, 60)
    await session.close()
    assert len(tries) == 1
