"""The store's contract: what is sealed for a tenant, and what is left of it once the tenant is erased."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.audit import Verified, verify
from broker.model import CallRecord, CallState
from broker.store.protocol import Store
from broker.store.records import StoreError
from tests.contracts.stores import (
    AUDIT_KEY,
    START,
    StorePlace,
    XorCipher,
    event_of,
    make_call,
    make_event,
    reserve,
    run,
    scope_of,
)

FULL = make_call("c1", key="k", request=b"the request", tool_log="")


def open_sealed(place: StorePlace) -> tuple[Store, XorCipher]:
    cipher = XorCipher()
    cipher.store = store = place.open(cipher)
    return store, cipher


async def end(store: Store, call: CallRecord, state: CallState = CallState.SUCCEEDED) -> CallRecord:
    ended = replace(
        await run(store, call),
        state=state,
        ended=START,
        result=b"the result",
        tool_log="the log",
        message="no order 7",
        failure={"tool_code": "X"},
    )
    await store.complete(ended, event_of(ended))
    return ended


async def test_reads_back_what_it_sealed(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    ended = await end(store, FULL)
    assert await store.get_call("acme", "c1") == ended
    assert (await store.claim(scope_of(FULL), "f1", "c2")).earlier == ended


async def test_opens_what_an_earlier_run_sealed(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    ended = await end(store, FULL)
    again, _ = open_sealed(place)
    assert await again.get_call("acme", "c1") == ended


async def test_reads_what_was_kept_clear_before_there_was_a_cipher(place: StorePlace) -> None:
    ended = await end(place.open(), FULL)
    store, _ = open_sealed(place)
    assert await store.get_call("acme", "c1") == ended


async def test_seals_the_end_of_a_call_that_began_clear(place: StorePlace) -> None:
    await run(place.open(), FULL)
    store, _ = open_sealed(place)
    (left,) = await store.unfinished()
    await store.adopt(replace(left, state=CallState.IN_DOUBT), event_of(left))
    (doubtful,) = await store.in_doubt()
    assert doubtful.request == b"the request"
    resolved = replace(doubtful, state=CallState.SUCCEEDED, result=b"it happened")
    await store.resolve(resolved, event_of(resolved))
    assert await store.get_call("acme", "c1") == resolved


async def test_does_not_give_sealed_bytes_for_clear_ones(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    with pytest.raises(StoreError, match="sealed, and the store has no cipher"):
        await place.open().get_call("acme", "c1")


async def test_lists_calls_and_what_is_left_open_without_any_key(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    await run(store, make_call("c2", request=b"r"))
    newer, cipher = open_sealed(place)
    cipher.refuses = True
    items = (await newer.list_calls("acme")).items
    assert {(call.call_id, call.request, call.result, call.tool_log) for call in items} == {
        ("c1", None, None, ""),
        ("c2", None, None, ""),
    }
    assert [call.call_id for call in await newer.unfinished()] == ["c2"]


async def test_reserves_nothing_whose_request_cannot_be_sealed(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    cipher.refuses = True
    with pytest.raises(StoreError, match="no key"):
        await reserve(store, FULL)
    assert await store.get_call("acme", "c1") is None
    await store.release(scope_of(FULL), "c1")
    cipher.refuses = False
    await reserve(store, FULL)


async def test_records_no_success_whose_result_cannot_be_sealed(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    call = await run(store, FULL)
    cipher.refuses = True
    with pytest.raises(StoreError, match="no key"):
        await store.complete(replace(call, state=CallState.SUCCEEDED, result=b"1"), event_of(call))
    await store.complete(replace(call, state=CallState.IN_DOUBT), event_of(call))
    cipher.refuses = False
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.state is CallState.IN_DOUBT


async def test_drops_a_log_that_cannot_be_sealed_rather_than_the_end_of_the_call(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    call = await run(store, replace(FULL, request=None))
    cipher.refuses = True
    ended = replace(call, state=CallState.FAILED, tool_log="secret log")
    await store.complete(ended, event_of(ended))
    cipher.refuses = False
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert "dropped" in found.tool_log


async def test_leaves_out_of_the_list_in_doubt_only_what_cannot_be_opened(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    await end(store, replace(FULL, request=None), CallState.IN_DOUBT)
    cipher.refuses = True
    with pytest.raises(StoreError, match="no key"):
        await store.in_doubt()
    bare = await run(store, make_call("c2"))
    await store.complete(replace(bare, state=CallState.IN_DOUBT), event_of(bare))
    assert [call.call_id for call in await store.in_doubt()] == ["c2"]


# --- tenants' keys ---------------------------------------------------------------------------------------
async def test_keeps_the_first_key_of_a_tenant(place: StorePlace) -> None:
    store = place.open()
    assert await store.tenant_key("acme") is None
    assert await store.put_tenant_key("acme", b"one") == b"one"
    assert await store.put_tenant_key("acme", b"two") == b"one"
    assert await place.open().tenant_key("acme") == b"one"
    assert await store.tenant_key("other") is None


async def test_reads_nothing_of_an_erased_tenant_but_that_there_were_calls(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    await store.erase_tenant("acme", make_event(kind="tenant.erased"))
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert (found.request, found.result, found.tool_log, found.message) == (None, None, "(erased)", "")
    assert (found.state, found.key, dict(found.failure)) == (CallState.SUCCEEDED, "k", {})
    assert await store.tenant_key("acme") is None


async def test_gives_no_key_of_an_erased_tenant_again(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    await store.erase_tenant("acme", make_event())
    claim = await store.claim(scope_of(FULL), "f1", "c2")
    assert claim.earlier is not None
    assert (claim.won, claim.earlier.state, claim.earlier.result) == (False, CallState.SUCCEEDED, None)


async def test_erases_what_was_kept_clear_too(place: StorePlace) -> None:
    await end(place.open(), FULL)
    store = place.open()
    await store.erase_tenant("acme", make_event())
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert (found.request, found.result, found.tool_log) == (None, None, "(erased)")


async def test_erases_no_other_tenant(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    kept = await end(store, replace(FULL, tenant="b", call_id="c2"))
    await end(store, FULL)
    await store.erase_tenant("acme", make_event())
    assert await store.get_call("b", "c2") == kept


async def test_seals_under_a_new_key_after_an_erasure(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    await store.erase_tenant("acme", make_event())
    later = await end(store, replace(FULL, call_id="c2", key="j"))
    assert await store.get_call("acme", "c2") == later
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.result is None


async def test_ends_a_call_that_ran_while_its_tenant_was_erased(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    call = await run(store, FULL)
    await store.erase_tenant("acme", make_event())
    ended = replace(call, state=CallState.SUCCEEDED, result=b"1")
    await store.complete(ended, event_of(ended))
    assert await store.get_call("acme", "c1") == replace(ended, request=None)


async def test_has_a_chain_that_verifies_after_an_erasure(place: StorePlace) -> None:
    store, _ = open_sealed(place)
    await end(store, FULL)
    await store.erase_tenant("acme", make_event(kind="tenant.erased"))
    await end(store, replace(FULL, call_id="c2", key="j"))
    verdict = await verify(store.audit_records(), {"k1": AUDIT_KEY})
    assert isinstance(verdict, Verified)
    assert verdict.head.sequence == 5
