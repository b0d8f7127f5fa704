"""end takes the login away, and says so only when Vault no longer knows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from credentials.errors import Cause, EndNotConfirmed
from credentials.lease import UNKNOWN_LEASE, OwedLease
from credentials.vault import VaultSession
from tests.credentials.conftest import TAG, wanted


@pytest.fixture
async def locked_roles(notes) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can change a role in PostgreSQL until this is closed."""
    connection = await asyncpg.connect(**notes.login())
    await connection.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE")
    yield connection
    await connection.close()


async def test_ends_login_session_lease_and_child(session, vault, notes, log_in) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    connection = await log_in(lease)
    await session.end(lease)
    # The last of them where the server's farewell is just being read.
    gone = (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError, asyncpg.InternalClientError)
    with pytest.raises(gone):
        await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await log_in(lease)
    assert (vault.count_leases(), vault.count_tokens(), notes.count_v_roles()) == (0, 0, 0)


async def test_says_when_the_end_was_confirmed(session) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert await session.end(lease) > lease.minted


async def test_ends_a_lease_again_without_complaint(session) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert await session.end(lease) <= await session.end(lease)


async def test_ends_a_lease_from_its_ids_alone_in_another_session(session, vault, notes) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    other = VaultSession(vault.address, vault.login)
    await other.open()
    await other.end(lease.owed())
    await other.close()
    assert (vault.count_leases(), notes.count_v_roles()) == (0, 0)


async def test_ends_a_lease_whose_id_was_never_told(session, vault) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    await session.end(replace(lease.owed(), lease_id=UNKNOWN_LEASE + lease.accessor))
    assert vault.count_tokens() == 0


async def test_forgets_a_lease_that_is_confirmed_dead(session) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert [owed.lease_id for owed in session.live_leases()] == [lease.lease_id]
    await session.end(lease)
    assert session.live_leases() == []


async def test_does_not_confirm_while_the_statements_fail(session, locked_roles, vault) -> None:
    [lease] = await _mint_before(session, locked_roles)
    with pytest.raises(EndNotConfirmed, match="lock timeout") as caught:
        await session.end(lease)
    assert caught.value.lease_id == lease.lease_id
    assert vault.list_leases() == [lease.lease_id]
    await locked_roles.close()
    await session.end(lease)
    assert vault.count_leases() == 0


async def test_does_not_confirm_a_lease_that_it_may_not_look_up(session) -> None:
    other = OwedLease("", "pki/issue/identity/x", "", "", "", "", datetime.now(UTC))
    with pytest.raises(EndNotConfirmed) as caught:
        await session.end(other)
    assert caught.value.cause is Cause.DENIED


async def test_ends_while_its_caller_is_cancelled(session, vault) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    ending = asyncio.create_task(session.end(lease))
    await asyncio.sleep(0.002)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    await session.end(lease)
    assert vault.count_leases() == 0


async def test_is_ended_by_vault_itself_when_its_time_is_up(session, vault, notes) -> None:
    await session.mint(TAG, wanted(), 1)
    async with asyncio.timeout(10):
        while vault.count_leases() + notes.count_v_roles() > 0:
            await asyncio.sleep(0.1)


async def _mint_before(session, lock):
    """Mint while the lock is lifted for a moment."""
    await lock.execute("COMMIT")
    leases = await session.mint(TAG, wanted(), 60)
    await lock.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE")
    return leases
