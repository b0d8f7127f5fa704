"""Attack: a tool with a static login prepares it so that something of this call is left for after it.

Each preparation first succeeds against Vault's default rotation (the control), and then fails against ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from credentials.bootstrap.roles import define_role
from credentials.dev_engines import make_static_login
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.secret import Secret
from credentials.vault import CallTag, CredentialWanted, VaultSession
from tests.parts.vault import TARGET

LOGINS = ("static-ours", "static-default")
WANTED = [CredentialWanted("ledger", "database_static", "static-ours")]
TAG = CallTag("call-1", "acme", "staging", "5e3c")
CLOSED = (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)


@pytest.fixture(scope="module")
def accounts(dev_vault: DevVault, dev_postgres: DevPostgres) -> Iterator[DevPostgres]:
    """A database with a ledger and two static logins: one rotated by our statements, one by Vault's."""
    dev_postgres.run_script("CREATE TABLE account (entry text);")
    for login in LOGINS:
        make_static_login(dev_postgres, login, ["INSERT ON account"])
    fields = {"engine": "database_static", "target": TARGET, "username": "static-ours"}
    dev_vault.bootstrap(definitions=[define_role("static-ours", fields)])
    by_vault = {"db_name": TARGET, "username": "static-default", "rotation_period": 86_400}
    dev_vault.write("database/static-roles/static-default", **by_vault)
    yield dev_postgres
    for login in LOGINS:
        dev_vault.delete(f"database/static-roles/{login}")
        dev_postgres.run_script(f'DROP OWNED BY "{login}"; DROP ROLE "{login}";')
    dev_postgres.run_script("DROP TABLE account;")


class Held:
    """A static login that a tool has, and how its call ends."""

    def __init__(self, vault: DevVault, postgres: DevPostgres, session: VaultSession | None) -> None:
        self._vault, self._postgres, self._session = vault, postgres, session
        self.name = "static-ours" if session else "static-default"
        self._opened: list[asyncpg.Connection] = []

    async def begin(self) -> None:
        """Have the password."""
        if self._session:
            [self._lease] = await self._session.mint(TAG, WANTED, 60)
            self.password = self._lease.secrets[0]
        else:
            self.password = self.read()

    async def end(self) -> None:
        """End the call: by our session, or by Vault's own rotation."""
        if self._session:
            await self._session.end(self._lease)
        else:
            self._vault.write(f"database/rotate-role/{self.name}")

    def read(self) -> Secret:
        """Read the password of now, as the next call would."""
        return Secret(self._vault.read(f"database/static-creds/{self.name}")["data"]["password"])

    def arguments(self) -> dict[str, Any]:
        """Return what asyncpg connects with."""
        return self._postgres.login(self.name, self.password)

    async def connect(self, password: Secret | None = None) -> asyncpg.Connection:
        """Log in."""
        login = self._postgres.login(self.name, password or self.password)
        self._opened.append(await asyncpg.connect(**login, timeout=5))
        return self._opened[-1]

    def close(self) -> None:
        """Close every connection."""
        for connection in self._opened:
            connection.terminate()


@pytest.fixture
async def ours(dev_vault, accounts, vault_session) -> AsyncIterator[Held]:
    held = Held(dev_vault, accounts, vault_session)
    await held.begin()
    yield held
    held.close()


@pytest.fixture
async def default(dev_vault, accounts) -> AsyncIterator[Held]:
    held = Held(dev_vault, accounts, None)
    await held.begin()
    yield held
    held.close()


# --- an open transaction ---------------------------------------------------------------------------------
async def leave_a_transaction(held: Held) -> asyncpg.Connection:
    connection = await held.connect()
    await connection.execute(f"BEGIN; INSERT INTO account VALUES ('{held.name}')")
    await held.end()
    return connection


async def test_control_an_open_transaction_commits_after_the_default_rotation(default, accounts) -> None:
    await (await leave_a_transaction(default)).execute("COMMIT")
    assert accounts.query(f"SELECT * FROM account WHERE entry = '{default.name}'")


async def test_an_open_transaction_does_not_commit_after_the_end(ours, accounts) -> None:
    connection = await leave_a_transaction(ours)
    with pytest.raises(CLOSED):
        await connection.execute("COMMIT")
    assert not accounts.query(f"SELECT * FROM account WHERE entry = '{ours.name}'")


# --- settings for its own later sessions -----------------------------------------------------------------
SETTINGS = [
    "ALTER ROLE CURRENT_USER SET search_path = pg_temp",
    "ALTER ROLE CURRENT_USER IN DATABASE tools SET search_path = pg_temp",
]


async def path_of_the_next(held: Held, setting: str) -> str:
    await (await held.connect()).execute(setting)
    await held.end()
    connection = await held.connect(held.read())
    return await connection.fetchval("SHOW search_path")


@pytest.mark.parametrize("setting", SETTINGS)
async def test_control_a_setting_stays_after_the_default_rotation(default, setting) -> None:
    assert await path_of_the_next(default, setting) == "pg_temp"


@pytest.mark.parametrize("setting", SETTINGS)
async def test_a_setting_does_not_reach_the_next_call(ours, setting) -> None:
    assert await path_of_the_next(ours, setting) == '"$user", public'


# --- clients that reconnect ------------------------------------------------------------------------------
async def reconnect_for_ever(arguments: dict[str, Any]) -> None:
    while True:
        with contextlib.suppress(*CLOSED, TimeoutError):
            connection = await asyncpg.connect(**arguments, timeout=3)
            try:
                while True:
                    await connection.execute("SELECT 1")
            finally:
                connection.terminate()
        await asyncio.sleep(0)


async def sessions_that_outlive(held: Held, postgres: DevPostgres) -> int:
    clients = [asyncio.create_task(reconnect_for_ever(held.arguments())) for _ in range(6)]
    await asyncio.sleep(0.15)
    await held.end()
    await asyncio.sleep(0.2)
    count = postgres.query(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{held.name}'")
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return int(count[0][0])


async def test_control_clients_stay_after_the_default_rotation(default, accounts) -> None:
    assert await sessions_that_outlive(default, accounts) == 6


async def test_clients_that_reconnect_in_a_loop_are_shut_out(ours, accounts) -> None:
    assert await sessions_that_outlive(ours, accounts) == 0


async def test_a_password_of_its_own_does_not_keep_the_login(ours) -> None:
    await (await ours.connect()).execute("ALTER ROLE CURRENT_USER PASSWORD 'one of my own choice'")
    await ours.end()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ours.connect(Secret("one of my own choice"))
