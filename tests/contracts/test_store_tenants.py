"""The store's contract: tenant B sees and changes nothing of A, on every method that takes a tenant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.model import CallState, Mark
from broker.store.protocol import Store
from broker.store.records import BaseChanged, GrantFiles, StoreError
from tests.contracts.stores import (
    START,
    event_of,
    make_brake,
    make_call,
    make_charge,
    make_event,
    make_lease,
    make_version,
    read_audit,
    reserve,
    run,
    scope_of,
    succeed,
)

A_CALL = make_call("c1", tenant="a", key="k")
A_GRANTS = GrantFiles({"a.cedar": "permit"}, "g1", START, "ann")
A_VERSION = make_version(tenant="a")


@pytest.fixture
async def shared(store: Store) -> Store:
    """A store in which tenant a has everything and tenant b nothing."""
    await succeed(store, A_CALL)
    await store.put_version(A_VERSION, make_event("a"))
    await store.move_alias("a", "shop", "stable", "1.0.0", make_event("a"))
    await store.apply_grants("a", A_GRANTS, "", make_event("a"))
    return store


async def test_gives_b_the_key_that_a_used(shared: Store) -> None:
    claim = await shared.claim(replace(scope_of(A_CALL), tenant="b"), "f1", "c2")
    assert (claim.won, claim.attempt, claim.earlier) == (True, 1, None)


async def test_does_not_let_b_release_the_key_that_a_claimed(shared: Store) -> None:
    scope = replace(scope_of(A_CALL), key="j")
    await shared.claim(scope, "f1", "c2")
    await shared.release(replace(scope, tenant="b"), "c2")
    assert not (await shared.claim(scope, "f1", "c3")).won


async def test_pins_nothing_for_b_that_a_ran_with(shared: Store) -> None:
    assert await shared.pinned_version(replace(scope_of(A_CALL), tenant="b")) == ""


async def test_does_not_charge_b_for_a(shared: Store) -> None:
    await reserve(shared, make_call(tenant="a"), make_charge(limit=1))
    await reserve(shared, make_call(tenant="b"), make_charge(limit=1))


async def test_does_not_let_b_reserve_under_a_call_id_of_a(shared: Store) -> None:
    with pytest.raises(StoreError):
        await reserve(shared, make_call("c1", tenant="b"))


@pytest.mark.parametrize("method", ["complete", "give_back"])
async def test_does_not_let_b_end_a_call_of_a(shared: Store, method: str) -> None:
    call = await run(shared, make_call("c2", tenant="a"), make_lease("l1"))
    forged = replace(call, tenant="b", state=CallState.FAILED)
    with pytest.raises(StoreError, match="no such call"):
        await getattr(shared, method)(forged, event_of(call))
    assert await shared.get_call("a", "c2") == call


async def test_does_not_let_b_amend_a_call_of_a(shared: Store) -> None:
    before = await shared.get_call("a", "c1")
    with pytest.raises(StoreError, match="no such call"):
        await shared.amend(replace(A_CALL, tenant="b", tool_log="forged"))
    assert await shared.get_call("a", "c1") == before


async def test_does_not_let_another_environment_end_a_call(shared: Store) -> None:
    call = await run(shared, make_call("c2", tenant="a"))
    with pytest.raises(StoreError, match="no such call"):
        await shared.complete(replace(call, environment="staging", state=CallState.FAILED), event_of(call))


async def test_shows_b_no_call_of_a(shared: Store) -> None:
    assert await shared.get_call("b", "c1") is None
    assert list((await shared.list_calls("b")).items) == []
    assert list((await shared.list_calls("b", agent="desk", state=CallState.SUCCEEDED)).items) == []


async def test_shows_nothing_to_an_empty_tenant(shared: Store) -> None:
    assert await shared.get_call("", "c1") is None
    assert list((await shared.list_calls("")).items) == []
    assert list((await shared.list_versions("")).items) == []
    assert (await shared.grant_files("")).files == {}


async def test_shows_b_no_version_of_a(shared: Store) -> None:
    assert await shared.get_version("b", "shop", "1.0.0") is None
    assert list((await shared.list_versions("b")).items) == []
    assert list((await shared.list_versions("b", bundle="shop")).items) == []


async def test_lets_b_register_the_same_name_with_other_content(shared: Store) -> None:
    row = make_version(tenant="b", digest="d2")
    assert await shared.put_version(row, make_event("b")) == row
    assert (await shared.get_version("a", "shop", "1.0.0")) == replace(A_VERSION, aliases=("stable",))


async def test_does_not_let_b_review_or_alias_a_version_of_a(shared: Store) -> None:
    with pytest.raises(StoreError, match="no such version"):
        await shared.review_version(make_version(tenant="b", state="REJECTED"), make_event("b"))
    with pytest.raises(StoreError, match="no such version"):
        await shared.move_alias("b", "shop", "stable", "1.0.0", make_event("b"))


async def test_moves_an_alias_of_b_without_moving_that_of_a(shared: Store) -> None:
    await shared.put_version(make_version("2.0.0", tenant="b"), make_event("b"))
    await shared.move_alias("b", "shop", "stable", "2.0.0", make_event("b"))
    found = await shared.get_version("a", "shop", "1.0.0")
    assert found is not None
    assert found.aliases == ("stable",)


async def test_shows_and_changes_no_grants_of_a_for_b(shared: Store) -> None:
    assert (await shared.grant_files("b")).files == {}
    with pytest.raises(BaseChanged):
        await shared.apply_grants("b", GrantFiles({}, "g2"), "g1", make_event("b"))
    await shared.apply_grants("b", GrantFiles({"b.cedar": ""}, "g2"), "", make_event("b"))
    assert await shared.grant_files("a") == A_GRANTS


async def test_shows_b_no_live_lease_of_a(shared: Store) -> None:
    await run(shared, make_call("c2", tenant="a"), make_lease("l1"))
    assert [live.call.call_id for live in await shared.live_leases("a")] == ["c2"]
    assert list(await shared.live_leases("b")) == []
    await run(shared, make_call("c3", tenant="b"), make_lease("l2"))
    assert [live.call.call_id for live in await shared.live_leases("b")] == ["c3"]


async def test_shows_b_no_use_of_a_grant_of_a(shared: Store) -> None:
    (used,) = await shared.grant_uses("a")
    assert used.grant_id == A_CALL.grant_id
    assert list(await shared.grant_uses("b")) == list(await shared.grant_uses("")) == []
    await reserve(shared, make_call(tenant="b"))
    assert [use.calls for use in await shared.grant_uses("b")] == [1]
    assert list(await shared.grant_uses("a")) == [used]


async def test_sets_and_lifts_a_brake_of_b_without_touching_that_of_a(shared: Store) -> None:
    brakes = [make_brake("b1", tenant="a"), make_brake("b2", tenant="b")]
    for brake in brakes:
        assert await shared.set_brake(brake, make_event(brake.tenant)) == brake
    await shared.lift_brake("b2", make_event("b"))
    assert list(await shared.brakes()) == brakes[:1]


async def test_does_not_let_b_mark_a_call_of_a(shared: Store) -> None:
    with pytest.raises(StoreError, match="no such call"):
        await shared.amend(replace(A_CALL, tenant="b", marks=(Mark.STOPPED,)))
    found = await shared.get_call("a", "c1")
    assert found is not None
    assert found.marks == ()


async def test_records_nothing_of_what_b_was_refused(shared: Store) -> None:
    before = await read_audit(shared)
    with pytest.raises(StoreError):
        await shared.move_alias("b", "shop", "stable", "1.0.0", make_event("b"))
    assert await read_audit(shared) == before
