"""The store's contract: budgets, lists and their tokens, versions, grants, and the audit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit import Verified, verify
from broker.model import CallState
from broker.store.protocol import Store
from broker.store.records import BaseChanged, BudgetExhausted, GrantFiles, StoreError, VersionExists
from tests.contracts.stores import (
    AUDIT_KEY,
    START,
    SetClock,
    StorePlace,
    event_of,
    make_call,
    make_charge,
    make_event,
    make_version,
    read_audit,
    reserve,
    run,
    scope_of,
    succeed,
)


# --- budgets ---------------------------------------------------------------------------------------------
async def test_reserves_what_fits_to_the_brim_and_no_more(store: Store) -> None:
    await reserve(store, make_call(), make_charge())
    await reserve(store, make_call(), make_charge())
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge())
    assert (caught.value.used, caught.value.charge) == (2, make_charge())


async def test_says_when_enough_will_have_left_the_window(store: Store, clock: SetClock) -> None:
    for amount in (10, 20, 70):
        await reserve(store, make_call(), make_charge(amount, 100, 60))
        clock.advance(10)
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge(30, 100, 60))
    assert caught.value.retry_after_seconds == 40


async def test_fits_again_at_the_time_that_was_said_and_not_before(store: Store, clock: SetClock) -> None:
    await reserve(store, make_call(), make_charge(limit=1))
    clock.advance(59.999999)
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge(limit=1))
    clock.advance(caught.value.retry_after_seconds)
    await reserve(store, make_call(), make_charge(limit=1))


async def test_says_that_waiting_cannot_help_a_charge_over_the_whole_limit(store: Store) -> None:
    await reserve(store, make_call(), make_charge(1, 100))
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge(101, 100))
    assert caught.value.retry_after_seconds == 0


async def test_writes_nothing_when_one_of_the_charges_does_not_fit(store: Store) -> None:
    call = make_call("c1", key="k")
    before = await read_audit(store)
    with pytest.raises(BudgetExhausted):
        await reserve(store, call, make_charge(1, 2, unit="calls"), make_charge(9, 5, unit="minor:EUR"))
    assert await store.get_call("acme", "c1") is None
    assert await read_audit(store) == before
    await reserve(store, make_call(), make_charge(2, 2))


async def test_leaves_the_key_claimed_when_the_budget_is_exhausted(store: Store) -> None:
    call = make_call("c1", key="k")
    with pytest.raises(BudgetExhausted):
        await reserve(store, call, make_charge(3, 2))
    claim = await store.claim(scope_of(call), "f1", "c2")
    assert claim.earlier is not None
    assert claim.earlier.state is CallState.CLAIMED


async def test_never_reserves_more_than_the_limit_for_many_at_once(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(reserve(store, make_call(), make_charge(limit=7)) for _ in range(30)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 7


async def test_returns_the_charges_of_a_call_that_was_given_back(store: Store) -> None:
    call = await reserve(store, make_call(), make_charge(limit=1))
    await store.give_back(replace(call, state=CallState.FAILED), event_of(call))
    await reserve(store, make_call(), make_charge(limit=1))


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.FAILED, CallState.IN_DOUBT])
async def test_keeps_the_charges_of_a_call_that_ran(store: Store, state: CallState) -> None:
    call = await reserve(store, make_call(), make_charge(limit=1))
    await store.dispatch(call.call_id, [])
    await store.complete(replace(call, state=state), event_of(call))
    with pytest.raises(BudgetExhausted):
        await reserve(store, make_call(), make_charge(limit=1))


async def test_returns_the_charges_of_an_adopted_call_that_was_never_dispatched(place: StorePlace) -> None:
    call = await reserve(place.open(), make_call(), make_charge(limit=1))
    newer = place.open()
    await newer.adopt(replace(call, state=CallState.FAILED), event_of(call))
    await reserve(newer, make_call(), make_charge(limit=1))


async def test_keeps_the_charges_of_an_adopted_call_that_was_dispatched(place: StorePlace) -> None:
    older = place.open()
    call = await reserve(older, make_call(), make_charge(limit=1))
    await older.dispatch(call.call_id, [])
    newer = place.open()
    await newer.adopt(replace(call, state=CallState.FAILED), event_of(call))
    with pytest.raises(BudgetExhausted):
        await reserve(newer, make_call(), make_charge(limit=1))


async def test_keeps_charges_over_a_restart(place: StorePlace) -> None:
    await reserve(place.open(), make_call(), make_charge(limit=1))
    with pytest.raises(BudgetExhausted):
        await reserve(place.open(), make_call(), make_charge(limit=1))


async def test_looks_at_the_same_charges_through_every_window(store: Store, clock: SetClock) -> None:
    day = make_charge(limit=3, window_seconds=86_400)
    for _ in range(3):
        await reserve(store, make_call(), make_charge(limit=2), day)
        clock.advance(60)
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge(limit=2), day)
    assert (caught.value.charge, caught.value.used) == (day, 3)


async def test_does_not_begin_from_nothing_when_a_limit_is_edited(store: Store) -> None:
    await reserve(store, make_call(), make_charge(limit=1, window_seconds=60))
    with pytest.raises(BudgetExhausted):
        await reserve(store, make_call(), make_charge(limit=1, window_seconds=3600))


async def test_adds_up_two_charges_on_one_limit(store: Store) -> None:
    await reserve(store, make_call(), make_charge(40, 100), make_charge(50, 100))
    with pytest.raises(BudgetExhausted) as caught:
        await reserve(store, make_call(), make_charge(11, 100))
    assert caught.value.used == 90


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"environment": "staging"}], ids=str)
async def test_keeps_budgets_of_tenants_and_environments_apart(store: Store, change: dict[str, str]) -> None:
    await reserve(store, make_call(), make_charge(limit=1))
    await reserve(store, make_call(**change), make_charge(limit=1))


async def test_keeps_budgets_of_units_and_grants_apart(store: Store) -> None:
    await reserve(store, make_call(), make_charge(limit=1))
    await reserve(store, make_call(), make_charge(limit=1, unit="minor:EUR"))
    await reserve(store, make_call(), replace(make_charge(limit=1), grant_id="drafts"))


async def test_refuses_a_charge_that_would_give_budget_back(store: Store) -> None:
    with pytest.raises(ValueError, match="negative"):
        await reserve(store, make_call(), make_charge(-1))


# --- lists of calls --------------------------------------------------------------------------------------
async def test_lists_calls_newest_first_in_pages_without_loss_or_double(store: Store) -> None:
    for number in range(7):
        await reserve(store, make_call(f"c{number}", started=START + timedelta(seconds=number // 2)))
    found, token = [], ""
    while True:
        page = await store.list_calls("acme", page_size=3, page_token=token)
        found += [call.call_id for call in page.items]
        if not (token := page.next_token):
            break
    assert found == [f"c{number}" for number in reversed(range(7))]


async def test_gives_no_token_when_the_page_ends_with_the_list(store: Store) -> None:
    await reserve(store, make_call())
    assert (await store.list_calls("acme", page_size=1)).next_token == ""


@pytest.mark.parametrize("page_size", [-1, 0, 1])
async def test_gives_at_least_one_item_a_page(store: Store, page_size: int) -> None:
    await reserve(store, make_call())
    assert len((await store.list_calls("acme", page_size=page_size)).items) == 1


async def test_lists_the_calls_that_match_every_filter(store: Store) -> None:
    await run(store, make_call("c1"))
    await run(store, make_call("c2", agent="other"))
    await run(store, make_call("c3", method="shop.v1.Orders/LookupOrder"))
    await reserve(store, make_call("c4"))
    page = await store.list_calls(
        "acme", agent="desk", method="shop.v1.Orders/IssueRefund", state=CallState.DISPATCHED
    )
    assert [call.call_id for call in page.items] == ["c1"]


async def token_of(store: Store) -> str:
    """Make a list of two pages and take its token."""
    for number in range(2):
        await reserve(store, make_call(f"c{number}"))
    token = (await store.list_calls("acme", page_size=1)).next_token
    assert token
    return token


@pytest.mark.parametrize("token", ["x", "!!", "é", "AAAA", "W10" * 40])
async def test_refuses_a_token_that_is_none(store: Store, token: str) -> None:
    with pytest.raises(ValueError, match="page token"):
        await store.list_calls("acme", page_token=token)


async def test_refuses_the_token_of_another_tenant_list_or_filter(store: Store) -> None:
    token = await token_of(store)
    with pytest.raises(ValueError, match="page token"):
        await store.list_calls("other", page_token=token)
    with pytest.raises(ValueError, match="page token"):
        await store.list_calls("acme", agent="desk", page_token=token)
    with pytest.raises(ValueError, match="page token"):
        await store.list_versions("acme", page_token=token)


async def test_refuses_a_token_with_one_character_changed(store: Store) -> None:
    token = await token_of(store)
    changed = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
    with pytest.raises(ValueError, match="page token"):
        await store.list_calls("acme", page_token=changed)


async def test_takes_its_tokens_again_after_a_restart(place: StorePlace) -> None:
    token = await token_of(place.open())
    assert len((await place.open().list_calls("acme", page_token=token)).items) == 1


# --- versions --------------------------------------------------------------------------------------------
async def test_reads_back_a_version(store: Store) -> None:
    row = make_version()
    assert await store.put_version(row, make_event()) == row
    assert await store.get_version("acme", "shop", "1.0.0") == row
    assert await store.get_version("acme", "shop", "2.0.0") is None


async def test_answers_the_same_version_to_the_same_digest_and_records_it_once(store: Store) -> None:
    await store.put_version(make_version(), make_event())
    again = await store.put_version(make_version(registered_by="bob"), make_event())
    assert again == make_version()
    assert len(await read_audit(store)) == 1


async def test_refuses_another_digest_under_the_same_version(store: Store) -> None:
    await store.put_version(make_version(), make_event())
    with pytest.raises(VersionExists):
        await store.put_version(make_version(digest="d2"), make_event())
    assert await store.get_version("acme", "shop", "1.0.0") == make_version()


async def test_takes_over_what_a_review_says_and_nothing_else(store: Store) -> None:
    await store.put_version(make_version(), make_event())
    reviewed = make_version(state="USABLE", reviewed_by="bob", reviewed=START, comment="fine")
    forged = replace(reviewed, image_id="sha256:2", registered_by="eve")
    assert await store.review_version(forged, make_event()) == reviewed
    assert await store.get_version("acme", "shop", "1.0.0") == reviewed


async def test_refuses_a_review_of_other_content_or_of_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="no such version"):
        await store.review_version(make_version(), make_event())
    await store.put_version(make_version(), make_event())
    with pytest.raises(VersionExists):
        await store.review_version(make_version(digest="d2", state="USABLE"), make_event())


async def test_moves_an_alias_from_one_version_to_another(store: Store) -> None:
    for version in ("1.0.0", "1.1.0"):
        await store.put_version(make_version(version), make_event())
    await store.move_alias("acme", "shop", "stable", "1.0.0", make_event())
    moved = await store.move_alias("acme", "shop", "stable", "1.1.0", make_event())
    assert moved == make_version("1.1.0", aliases=("stable",))
    assert await store.get_version("acme", "shop", "1.0.0") == make_version("1.0.0")


async def test_points_no_alias_at_a_version_that_is_not_there(store: Store) -> None:
    with pytest.raises(StoreError, match="no such version"):
        await store.move_alias("acme", "shop", "stable", "1.0.0", make_event())
    assert await read_audit(store) == []


async def test_lists_versions_newest_first_by_bundle_and_in_pages(store: Store) -> None:
    for number, bundle in enumerate(["shop", "mail", "shop", "shop"]):
        row = make_version(f"1.{number}.0", bundle=bundle, registered=START + timedelta(seconds=number))
        await store.put_version(row, make_event())
    first = await store.list_versions("acme", bundle="shop", page_size=2)
    second = await store.list_versions("acme", bundle="shop", page_size=2, page_token=first.next_token)
    assert [row.version for row in first.items] == ["1.3.0", "1.2.0"]
    assert ([row.version for row in second.items], second.next_token) == (["1.0.0"], "")
    assert len((await store.list_versions("acme")).items) == 4


# --- grants ----------------------------------------------------------------------------------------------
GRANTS = GrantFiles({"a.cedar": "permit", "destinations.toml": ""}, "g1", START, "bob")


async def test_has_no_grants_for_a_tenant_that_applied_none(store: Store) -> None:
    assert await store.grant_files("acme") == GrantFiles({}, "")


async def test_replaces_grant_files_as_a_whole(store: Store) -> None:
    await store.apply_grants("acme", GRANTS, "", make_event())
    assert await store.grant_files("acme") == GRANTS
    fewer = GrantFiles({"b.cedar": "forbid"}, "g2", START, "ann")
    await store.apply_grants("acme", fewer, "g1", make_event())
    assert await store.grant_files("acme") == fewer


async def test_refuses_grants_planned_from_others_than_those_in_force(store: Store) -> None:
    await store.apply_grants("acme", GRANTS, "", make_event())
    with pytest.raises(BaseChanged):
        await store.apply_grants("acme", GrantFiles({}, "g2"), "", make_event())
    assert await store.grant_files("acme") == GRANTS
    assert len(await read_audit(store)) == 1


async def test_names_the_tenants_that_have_a_version_or_grants(store: Store) -> None:
    await store.put_version(make_version(), make_event())
    await store.apply_grants("other", GRANTS, "", make_event("other"))
    await reserve(store, make_call(tenant="third"))
    assert list(await store.tenants()) == ["acme", "other"]


# --- the audit -------------------------------------------------------------------------------------------
async def test_chains_one_record_a_decision_over_all_tenants(place: StorePlace) -> None:
    await succeed(place.open(), make_call())
    store = place.open()
    await store.append_audit(make_event("other"))
    await store.refuse(make_call(state=CallState.REFUSED), make_event())
    assert [record.sequence for record in await read_audit(store)] == [1, 2, 3, 4]
    assert isinstance(await verify(store.audit_records(), {"k1": AUDIT_KEY}), Verified)


async def test_iterates_over_the_chain_from_a_sequence_on(store: Store) -> None:
    for _ in range(3):
        await store.append_audit(make_event())
    assert [record.sequence for record in await read_audit(store, 1)] == [2, 3]
    assert await read_audit(store, 3) == []


async def test_keeps_the_chain_whole_when_many_write_at_once(store: Store) -> None:
    await asyncio.gather(*(succeed(store, make_call()) for _ in range(40)))
    verdict = await verify(store.audit_records(), {"k1": AUDIT_KEY})
    assert isinstance(verdict, Verified)
    assert verdict.head.sequence == 80
