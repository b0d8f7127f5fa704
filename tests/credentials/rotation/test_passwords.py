"""Vault's own password at a database gets another one that nobody knows; logins go on being made."""

from __future__ import annotations

import asyncpg
import pytest

from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.dev_vault import DevVault
from credentials.engines import DEFAULT_MOUNTS, Order
from credentials.engines.database import DatabaseEngine
from credentials.errors import Cause, CredentialsUnavailable
from credentials.rotation.passwords import rotate_database_user, rotate_directory_user, rotate_shared_login
from credentials.secret import Secret
from credentials.vault import CallTag, CredentialWanted, VaultSession
from credentials.vault_api import VaultApi, VaultFault
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
        await rotate_shared_login(api, vault.root_token, DEFAULT_MOUNTS, "database_static", "nobody")


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
    assert [tried.credential for tried in lease.given_up] == [lease.credential]
    assert lease.accessor not in [tried.accessor for tried in lease.given_up]
    await session.end(lease)
    await session.close()


async def test_tries_four_times_and_no_more(vault, postgres) -> None:
    refusal = Refusal(vault, postgres, until=0)
    session = await open_hooked(vault, refusal.after)
    with pytest.raises(CredentialsUnavailable, match="refused Vault again and again") as caught:
        await session.mint(TAG, WANTED, 60)
    refusal.end()
    await session.close()
    assert (caught.value.cause, caught.value.owed, refusal.tries) == (Cause.NOTHING_MADE, [], 4)
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


class Saying(VaultApi):
    """A Vault that refuses everything with one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def ask(self, *_: object, **__: object) -> dict[str, object]:
        raise VaultFault(self._text, Cause.BACKEND)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("unable to start transaction: failed to connect to `x`: y (SQLSTATE 28P01)", Cause.NOTHING_MADE),
        ("failed to execute query: ERROR: tuple concurrently updated (SQLSTATE XX000)", Cause.NOTHING_MADE),
        ("failed to execute query: ERROR: deadlock detected (SQLSTATE 40P01)", Cause.NOTHING_MADE),
        ("failed to execute query: ERROR: relation is missing (SQLSTATE 42P01)", Cause.BACKEND),
        ("unable to start transaction: failed to connect to `x`: refused", Cause.BACKEND),
        ("failed to commit: password authentication failed (SQLSTATE 28P01)", Cause.BACKEND),
        ("internal error", Cause.BACKEND),
    ],
)
async def test_tries_again_only_where_vault_says_that_nothing_was_made(text, cause) -> None:
    with pytest.raises(VaultFault) as caught:
        await DatabaseEngine().read(Saying(text), Secret("child"), DEFAULT_MOUNTS, Order(WANTED[0], TAG, 60))
    assert caught.value.cause is cause
