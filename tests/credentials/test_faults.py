"""Vault carries a request out, and its answer is lost, late or wrong: nothing lives that nobody ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from credentials.errors import CredentialsUnavailable, EndNotConfirmed
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.conftest import TAG, wanted
from tests.credentials.faulty_proxy import Fault, FaultyProxy, run_faulty_proxy

CHILD, LEASE = "auth/token/create/", "database/creds/"
WRONG = [Fault.STATUS_500, Fault.CUT, Fault.LATE]
ENDS = {
    "lease": "sys/leases/revoke",
    "child": "auth/token/revoke-accessor",
    "look at the lease": "sys/leases/lookup",
    "look at the child": "auth/token/lookup-accessor",
}


@pytest.fixture
def proxy(own_vault) -> Iterator[FaultyProxy]:
    with run_faulty_proxy(own_vault.address) as running:
        yield running


@pytest.fixture
async def faulty(proxy, own_vault) -> AsyncIterator[VaultSession]:
    """A session that reaches its Vault through the proxy."""
    tuning = SessionTuning(timeout_seconds=1.0, renew_seconds=0.3)
    session = VaultSession(proxy.address, own_vault.login, tuning)
    await session.open()
    yield session
    proxy.faults.clear()
    await session.close()


@pytest.mark.parametrize("fault", WRONG)
async def test_ends_a_login_whose_mint_was_not_answered_rightly(
    faulty, proxy, own_vault, notes, fault
) -> None:
    proxy.faults[LEASE] = fault
    with pytest.raises(CredentialsUnavailable) as caught:
        await faulty.mint(TAG, wanted(), 60)
    assert (proxy.seen, caught.value.owed, faulty.live_leases()) == (1, [], [])
    await _wait_for(lambda: own_vault.count_leases() == notes.count_v_roles() == 0)
    assert own_vault.count_tokens() == 0


@pytest.mark.parametrize("fault", WRONG)
async def test_makes_no_login_with_a_child_that_it_was_not_told(
    faulty, proxy, own_vault, notes, fault
) -> None:
    proxy.faults[CHILD] = fault
    with pytest.raises(CredentialsUnavailable):
        await faulty.mint(TAG, wanted(), 60)
    assert (own_vault.count_leases(), notes.count_v_roles()) == (0, 0)
    unclaimed = [token for token in own_vault.list_tokens() if "call_id" in (token["meta"] or {})]
    assert all(token["num_uses"] == 2 and token["ttl"] <= 60 for token in unclaimed)


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("step", ENDS)
async def test_confirms_no_end_that_was_not_answered_rightly(
    faulty, proxy, own_vault, notes, step, fault
) -> None:
    [lease] = await faulty.mint(TAG, wanted(), 60)
    proxy.faults[ENDS[step]] = fault
    with pytest.raises(EndNotConfirmed) as caught:
        await faulty.end(lease)
    assert (caught.value.lease_id, proxy.seen > 0) == (lease.lease_id, True)
    assert [owed.lease_id for owed in faulty.live_leases()] == [lease.lease_id]
    proxy.faults.clear()
    await faulty.end(lease)
    assert (own_vault.count_leases(), own_vault.count_tokens(), notes.count_v_roles()) == (0, 0, 0)


async def test_returns_as_owed_what_is_cut_off_half_way_and_cannot_be_ended(
    faulty, proxy, own_vault, notes
) -> None:
    proxy.faults |= {LEASE: Fault.CUT, ENDS["child"]: Fault.STATUS_500}
    with pytest.raises(CredentialsUnavailable) as caught:
        await faulty.mint(TAG, wanted(), 60)
    [owed] = caught.value.owed
    assert owed.lease_id == f"unknown/{owed.accessor}"
    proxy.faults.clear()
    await faulty.end(owed)
    await _wait_for(lambda: own_vault.count_leases() == notes.count_v_roles() == 0)


async def test_mints_and_ends_at_a_vault_that_is_slow(faulty, proxy, log_in) -> None:
    proxy.faults[""] = Fault.SLOW
    [lease] = await faulty.mint(TAG, wanted(), 60)
    assert await (await log_in(lease)).fetchval("SELECT note FROM notes") == "hello"
    await faulty.end(lease)
    assert faulty.live_leases() == []


@pytest.mark.parametrize("fault", WRONG)
async def test_keeps_a_session_whose_renewals_are_not_answered_rightly(
    faulty, proxy, own_vault, fault
) -> None:
    proxy.faults["auth/token/renew-self"] = fault
    await asyncio.sleep(4)  # the period is 3 s, and each renewal is carried out
    assert (faulty.lost, own_vault.count_sessions()) == (False, 1)


async def test_ends_the_session_that_a_failed_login_had_made(proxy, own_vault) -> None:
    proxy.faults["auth/token/lookup-self"] = Fault.STATUS_500
    session = VaultSession(proxy.address, own_vault.login, SessionTuning(timeout_seconds=1.0))
    with pytest.raises(CredentialsUnavailable, match="cannot log in"):
        await session.open()
    assert own_vault.count_sessions() == 0


async def _wait_for(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.05)
