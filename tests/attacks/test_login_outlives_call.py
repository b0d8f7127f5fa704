"""Attack: a tool prepares its database login so that it survives the end of the call.

Each preparation first succeeds against Vault's default statements (the control), and then fails against ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.errors import EndNotConfirmed, PartUnavailable
from credentials.secret import Secret
from credentials.vault import CallTag, CredentialWanted, Lease
from tests.parts.vault import TARGET

ROLE = "ledger-write"
GRANT = 'GRANT SELECT, INSERT ON ledger TO "{{name}}"'
DEFAULT_CREATION = """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"""
WANTED = [CredentialWanted("ledger", "database", ROLE)]
TAG = CallTag("call-1", "acme", "staging", "5e3c")

Connect = Callable[..., Awaitable[asyncpg.Connection]]

BLOCKERS = {
    "temp table": "CREATE TEMP TABLE stay (x int)",
    "large object": "SELECT lo_create(0)",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
}
CLOSED = (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)


@pytest.fixture(scope="module")
def ledger(dev_vault: DevVault, dev_postgres: DevPostgres) -> Iterator[DevPostgres]:
    """A database with a ledger, a role with our statements for it, and one with Vault's."""
    dev_postgres.run_script("CREATE TABLE ledger (entry text);")
    dev_vault.install_role(ROLE, TARGET, [GRANT])
    dev_vault.write("database/roles/default", db_name=TARGET, creation_statements=[DEFAULT_CREATION, GRANT])
    yield dev_postgres
    dev_postgres.run_script("DROP TABLE ledger;")


@pytest.fixture
async def connect(ledger: DevPostgres) -> AsyncIterator[Connect]:
    """Logs in; what is still open is closed after the test."""
    opened: list[asyncpg.Connection] = []

    async def log_in(username: str, password: Secret, **changes: str) -> asyncpg.Connection:
        opened.append(await asyncpg.connect(**ledger.login(username, password) | changes, timeout=5))
        return opened[-1]

    yield log_in
    for connection in opened:
        connection.terminate()


class DefaultLogin:
    """A login as Vault makes it without our statements."""

    def __init__(self, vault: DevVault) -> None:
        answer = vault.read("database/creds/default")
        self.lease_id: str = answer["lease_id"]
        self.username: str = answer["data"]["username"]
        self.password = Secret(answer["data"]["password"])


@pytest.fixture
def default_login(dev_vault: DevVault, ledger: DevPostgres) -> Iterator[DefaultLogin]:
    """One such login, taken away by hand afterwards."""
    login = DefaultLogin(dev_vault)
    yield login
    ledger.run_script(_drop_by_hand(login.username))
    dev_vault.write("sys/leases/revoke", lease_id=login.lease_id, sync=True)


async def test_control_an_open_transaction_commits_after_the_default_end(
    dev_vault, ledger, default_login, connect
) -> None:
    connection = await connect(default_login.username, default_login.password)
    await connection.execute("BEGIN; INSERT INTO ledger VALUES ('control')")
    dev_vault.write("sys/leases/revoke", lease_id=default_login.lease_id, sync=True)
    await connection.execute("COMMIT")
    assert ledger.query("SELECT * FROM ledger WHERE entry = 'control'") == [["control"]]


@pytest.mark.parametrize("blocker", BLOCKERS.values(), ids=BLOCKERS)
async def test_control_a_blocker_keeps_the_default_login_alive(
    dev_vault, default_login, connect, blocker
) -> None:
    connection = await connect(default_login.username, default_login.password)
    await connection.execute(blocker)
    with pytest.raises(PartUnavailable):
        dev_vault.write("sys/leases/revoke", lease_id=default_login.lease_id, sync=True)
    again = await connect(default_login.username, default_login.password)
    assert await again.fetchval("SELECT current_user") == default_login.username


async def test_an_open_transaction_does_not_commit_after_the_end(vault_session, ledger, connect) -> None:
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    connection = await connect(lease.username, lease.secrets[0])
    await connection.execute("BEGIN; INSERT INTO ledger VALUES ('attack')")
    await vault_session.end(lease)
    with pytest.raises(CLOSED):
        await connection.execute("COMMIT")
    assert ledger.query("SELECT * FROM ledger WHERE entry = 'attack'") == []


@pytest.mark.parametrize("blocker", BLOCKERS.values(), ids=BLOCKERS)
async def test_a_blocker_does_not_keep_the_login_alive(vault_session, ledger, connect, blocker) -> None:
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    connection = await connect(lease.username, lease.secrets[0])
    await connection.execute(blocker)
    await vault_session.end(lease)
    await _assert_closed(connect, lease)
    assert (ledger.count_v_roles(), ledger.count_v_sessions()) == (0, 0)


async def test_a_session_that_is_busy_is_ended(vault_session, ledger, connect) -> None:
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    connection = await connect(lease.username, lease.secrets[0])
    await connection.execute("SET statement_timeout = 0; SET client_connection_check_interval = 0")
    busy = connection.execute("SELECT count(*) FROM generate_series(1, 1000000000)")
    await _end_while(vault_session.end(lease), busy)
    assert ledger.count_v_sessions() == 0


async def test_a_password_of_its_own_does_not_keep_the_login_alive(vault_session, ledger, connect) -> None:
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    connection = await connect(lease.username, lease.secrets[0])
    await connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    await vault_session.end(lease)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(lease.username, Secret("mine"))


async def test_clients_that_reconnect_in_a_loop_are_shut_out(vault_session, ledger) -> None:
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    clients = [
        asyncio.create_task(_reconnect_for_ever(ledger.login(lease.username, lease.secrets[0])))
        for _ in range(6)
    ]
    await asyncio.sleep(0.15)
    await vault_session.end(lease)
    await asyncio.sleep(0.2)
    assert (ledger.count_v_roles(), ledger.count_v_sessions()) == (0, 0)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def test_an_object_in_another_database_leaves_a_closed_login_that_stays_owed(
    vault_session, ledger, connect
) -> None:
    ledger.run_script("CREATE DATABASE elsewhere;")
    [lease] = await vault_session.mint(TAG, WANTED, 60)
    connection = await connect(lease.username, lease.secrets[0], database="elsewhere")
    await connection.execute("SELECT lo_create(0)")
    with pytest.raises(EndNotConfirmed, match="cannot be dropped because some objects depend on it"):
        await vault_session.end(lease)
    await _assert_closed(connect, lease)
    assert ledger.count_v_sessions() == 0
    ledger.run_script("DROP DATABASE elsewhere;")
    await vault_session.end(lease)


async def _assert_closed(connect: Connect, lease: Lease) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(lease.username, lease.secrets[0])


async def _reconnect_for_ever(login: dict[str, Any]) -> None:
    while True:
        with contextlib.suppress(*CLOSED, TimeoutError):
            connection = await asyncpg.connect(**login, timeout=3)
            try:
                while True:
                    await connection.execute("SELECT 1")
            finally:
                connection.terminate()
        await asyncio.sleep(0)


async def _end_while(end: Awaitable[object], busy: Awaitable[object]) -> None:
    running = asyncio.ensure_future(busy)
    await asyncio.sleep(0.05)
    await end
    with pytest.raises(CLOSED):
        await running


def _drop_by_hand(username: str) -> str:
    return f"""DO $$ BEGIN
      PERFORM pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = '{username}';
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{username}') THEN
        DROP OWNED BY "{username}"; DROP ROLE "{username}";
      END IF;
    END $$;"""
