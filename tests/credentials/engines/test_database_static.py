"""A static login: one call at a time, and after each a new password and no session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from credentials.bootstrap.roles import define_role
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed, PartUnavailable
from credentials.lease import Lease
from credentials.secret import Secret
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.engines.conftest import OTHER_LOGIN, TAG, A, Ids, role_of, wanted
from tests.parts.vault import TARGET

LOGIN = role_of("database_static", A)
WANTED = wanted("database_static")
CLOSED = (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)
Connect = Callable[..., Awaitable[asyncpg.Connection]]


@pytest.fixture
async def session(engines_vault) -> AsyncIterator[VaultSession]:
    """A session whose calls wait a second for each other's login."""
    opened = VaultSession(engines_vault.address, engines_vault.login, SessionTuning(timeout_seconds=1.0))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def connect(dev_postgres) -> AsyncIterator[Connect]:
    """Logs in with what a lease gave."""
    opened: list[asyncpg.Connection] = []

    async def log_in(lease: Lease) -> asyncpg.Connection:
        login = dev_postgres.login(lease.username, lease.secrets[0])
        opened.append(await asyncpg.connect(**login, timeout=5))
        return opened[-1]

    yield log_in
    for connection in opened:
        connection.terminate()


async def test_gives_the_login_that_exists(session, connect) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    connection = await connect(lease)
    assert await connection.fetchval("SELECT current_user") == LOGIN == lease.username


async def test_refuses_the_password_after_the_end(session, connect) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    await connect(lease)
    await session.end(lease)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(lease)


async def test_ends_what_is_open(session, connect) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    connection = await connect(lease)
    await connection.execute("BEGIN; CREATE TEMP TABLE kept (x int)")
    await session.end(lease)
    with pytest.raises(CLOSED):
        await connection.execute("COMMIT")


async def test_gives_the_next_call_another_password(session, connect) -> None:
    [first] = await session.mint(TAG, WANTED, 60)
    await session.end(first)
    [second] = await session.mint(TAG, WANTED, 60)
    assert first.secrets != second.secrets
    assert await (await connect(second)).fetchval("SELECT 1") == 1


async def test_lets_calls_take_turns(session) -> None:
    [first] = await session.mint(TAG, WANTED, 60)
    waiting = asyncio.create_task(session.mint(TAG, WANTED, 60))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await session.end(first)
    [second] = await waiting
    assert second.secrets != first.secrets


async def test_refuses_a_call_when_its_turn_does_not_come(session) -> None:
    await session.mint(TAG, WANTED, 60)
    with pytest.raises(CredentialsUnavailable, match="another call has the login") as caught:
        await session.mint(TAG, WANTED, 60)
    assert caught.value.cause is Cause.OVERLOADED


async def test_does_not_confirm_while_the_statements_fail(session, dev_postgres, connect) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    blocker = await asyncpg.connect(**dev_postgres.login())
    await blocker.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE")
    with pytest.raises(EndNotConfirmed):
        await session.end(lease)
    with pytest.raises(CredentialsUnavailable, match="another call has the login"):
        await session.mint(TAG, WANTED, 60)
    await blocker.close()
    await session.end(lease)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(lease)


async def test_does_not_give_a_password_that_vault_changes_during_the_call(session) -> None:
    day = 86_400
    with pytest.raises(CredentialsUnavailable, match="try again") as caught:
        await session.mint(TAG, WANTED, day + 1)
    assert (caught.value.cause, caught.value.owed) == (Cause.OVERLOADED, [])


async def test_owes_the_end_of_a_login_whose_role_is_gone(session, engines_vault) -> None:
    definition = {"engine": "database_static", "target": TARGET, "username": OTHER_LOGIN}
    engines_vault.bootstrap(definitions=[define_role("database-static-gone", definition)])
    [lease] = await session.mint(TAG, wanted("database_static", "gone"), 60)
    engines_vault.delete("database/static-roles/database-static-gone")
    with pytest.raises(EndNotConfirmed, match="close the login by hand"):
        await session.end(lease)
    engines_vault.bootstrap(definitions=[define_role("database-static-gone", definition)])
    await session.end(lease)
    engines_vault.delete("database/static-roles/database-static-gone")


async def test_ends_it_twice_without_harm_to_the_next_call(session, connect) -> None:
    """An end that comes again is another rotation: a broker that owes one has to do it before it mints."""
    [lease] = await session.mint(TAG, WANTED, 60)
    await session.end(lease)
    await session.end(Ids(lease.lease_id, lease.accessor, lease.engine, lease.role))
    [after] = await session.mint(TAG, WANTED, 60)
    assert await (await connect(after)).fetchval("SELECT 1") == 1


def test_is_refused_by_the_target_when_vault_could_not_end_sessions(engines_vault, dev_postgres) -> None:
    dev_postgres.run_script(
        'CREATE ROLE "x-closed" LOGIN; GRANT "x-closed" TO toolcrib_vault WITH ADMIN TRUE, INHERIT FALSE;'
    )
    fields = {"engine": "database_static", "target": TARGET, "username": "x-closed"}
    with pytest.raises(PartUnavailable, match="WITH INHERIT TRUE"):
        engines_vault.bootstrap(definitions=[define_role("database-static-closed", fields)])
    dev_postgres.run_script('DROP ROLE "x-closed";')


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rotation_statements": []}, "its rotation_statements are not Toolcrib's"),
        ({"rotation_period": 60}, "its rotation_period must be 7200 s at least"),
    ],
)
async def test_says_what_is_wrong_with_a_role(session, engines_vault, change, problem) -> None:
    role = "database-static-odd"
    fields = {"engine": "database_static", "target": TARGET, "username": OTHER_LOGIN}
    [item] = define_role(role, fields).list_items(DEFAULT_MOUNTS)
    assert item is not None
    engines_vault.write(item.path, **{**item.values, **change})
    engine = ENGINES["database_static"]
    found = await session.ask("x", lambda api, token: engine.find_problems(api, token, DEFAULT_MOUNTS, role))
    engines_vault.delete(f"database/static-roles/{role}")
    assert [text for text in found if problem in text] == found != []


async def test_refuses_a_password_that_is_too_short(session, engines_vault) -> None:
    policy = 'length = 11\nrule "charset" { charset = "abcdefghijklmnop" }'
    engines_vault.write("sys/policies/password/short", policy=policy)
    engines_vault.write(f"database/config/{TARGET}", password_policy="short", verify_connection=False)
    [lease] = await session.mint(TAG, WANTED, 60)
    await session.end(lease)
    with pytest.raises(CredentialsUnavailable, match="set a password policy"):
        await session.mint(TAG, WANTED, 60)
    engines_vault.write(f"database/config/{TARGET}", password_policy="", verify_connection=False)
    engines_vault.write(f"database/rotate-role/{LOGIN}")
    assert isinstance(lease.secrets[0], Secret)
