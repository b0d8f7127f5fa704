"""The store's contract: the files that calls gave back, and who sees what of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from broker.model import Artefact, CallRecord, CallState
from broker.store.protocol import Store
from broker.store.records import StoreError
from tests.contracts.stores import (
    START,
    StorePlace,
    XorCipher,
    event_of,
    make_artefact,
    make_call,
    make_event,
    run,
    scope_of,
    succeed,
)
from tools.contract import Effect

MEBIBYTE = 1024 * 1024
LONG = bytes(itertools.islice(itertools.cycle(range(251)), 2 * MEBIBYTE + 5))
REPORT, PICTURE, EMPTY = make_artefact(), make_artefact("b.png", LONG), make_artefact("c", b"")
CALL = make_call("c1", key="k")


def open_sealed(place: StorePlace) -> tuple[Store, XorCipher]:
    cipher = XorCipher()
    cipher.store = store = place.open(cipher)
    return store, cipher


def listed(*artefacts: Artefact) -> tuple[Artefact, ...]:
    """Say how a record names them."""
    return tuple(replace(one, content=None) for one in artefacts)


async def read(store: Store, call_id: str = "c1") -> CallRecord:
    found = await store.get_call("acme", call_id)
    assert found is not None
    return found


async def fetch(store: Store, position: int, tenant: str = "acme") -> bytes:
    content = b""
    while part := await store.read_artefact(tenant, "c1", position, len(content)):
        assert len(part) <= MEBIBYTE
        content += part
    return content


@pytest.mark.parametrize("sealed", [False, True])
async def test_gives_back_what_a_call_gave(place: StorePlace, sealed: bool) -> None:
    store = open_sealed(place)[0] if sealed else place.open()
    given = (REPORT, PICTURE, EMPTY)
    await succeed(store, CALL, *given)
    again = open_sealed(place)[0] if sealed else place.open()
    assert (await read(again)).artefacts == listed(*given)
    assert [await fetch(again, position) for position in range(4)] == [b"1,2", LONG, b"", b""]


async def test_reads_on_from_any_offset(store: Store) -> None:
    await succeed(store, CALL, PICTURE)
    for offset in (0, 1, MEBIBYTE - 1, MEBIBYTE, 2 * MEBIBYTE + 4):
        part = await store.read_artefact("acme", "c1", 0, offset)
        assert part == LONG[offset : offset + len(part)]
        assert part
    assert await store.read_artefact("acme", "c1", 0, len(LONG)) == b""
    assert await store.read_artefact("acme", "c1", 0, 100 * MEBIBYTE) == b""


async def test_replays_a_call_with_its_artefacts(store: Store) -> None:
    await succeed(store, CALL, REPORT)
    claim = await store.claim(scope_of(CALL), "f1", "c2")
    assert claim.earlier is not None
    assert claim.earlier.artefacts == listed(REPORT)


async def test_keeps_them_when_the_record_is_amended(store: Store) -> None:
    await succeed(store, CALL, REPORT)
    await store.amend(replace(await read(store), tool_log="log", artefacts=(EMPTY,)))
    assert ((await read(store)).artefacts, await fetch(store, 0)) == (listed(REPORT), b"1,2")


async def test_keeps_those_of_a_bare_read_and_of_a_call_that_was_in_doubt(store: Store) -> None:
    bare = make_call("c1", effect=Effect.READ, state=CallState.DISPATCHED)
    await store.reserve(bare, None, (), event_of(bare))
    ended = replace(bare, state=CallState.SUCCEEDED, result=b"", ended=START, artefacts=(REPORT,))
    await store.complete(ended, event_of(ended))
    call = replace(await run(store, make_call("c2")), state=CallState.IN_DOUBT)
    await store.complete(call, event_of(call))
    resolved = replace(call, state=CallState.SUCCEEDED, result=b"", artefacts=(REPORT,))
    await store.resolve(resolved, event_of(resolved))
    assert [(await read(store, name)).artefacts for name in ("c1", "c2")] == [listed(REPORT)] * 2


async def test_lists_calls_without_them_and_without_any_key(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    await succeed(store, CALL, REPORT)
    cipher.refuses = True
    assert [call.artefacts for call in (await store.list_calls("acme")).items] == [()]
    with pytest.raises(StoreError, match="no key"):
        await store.read_artefact("acme", "c1", 0, 0)


async def test_records_no_success_whose_artefact_cannot_be_sealed(place: StorePlace) -> None:
    store, cipher = open_sealed(place)
    call = await run(store, CALL)
    cipher.refuses = True
    ended = replace(call, state=CallState.SUCCEEDED, artefacts=(REPORT,))
    with pytest.raises(StoreError, match="no key"):
        await store.complete(ended, event_of(ended))
    cipher.refuses = False
    assert ((await read(store)).state, await fetch(store, 0)) == (CallState.DISPATCHED, b"")


@pytest.mark.parametrize("sealed", [False, True])
async def test_has_none_of_an_erased_tenant(place: StorePlace, sealed: bool) -> None:
    store = open_sealed(place)[0] if sealed else place.open()
    await succeed(store, CALL, REPORT, PICTURE)
    await succeed(store, make_call("c2", tenant="b"), REPORT)
    await store.erase_tenant("acme", make_event(kind="tenant.erased"))
    assert ((await read(store)).artefacts, await fetch(store, 0)) == ((), b"")
    assert await store.read_artefact("b", "c2", 0, 0) == b"1,2"


async def test_shows_b_none_of_a(store: Store) -> None:
    await succeed(store, CALL, REPORT)
    for tenant in ("b", ""):
        assert await store.get_call(tenant, "c1") is None
        assert await fetch(store, 0, tenant) == b""
    assert await fetch(store, 0) == b"1,2"
