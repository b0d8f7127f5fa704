"""The store's contract on workflows: what a call leaves comes with its change or not at all, by tenant."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import CallState
from broker.store.protocol import Store
from broker.store.records import BudgetExhausted, StoreError
from broker.workflow_records import Imprint, Workflow, WorkflowName
from tests.contracts.stores import (
    START,
    StorePlace,
    event_of,
    make_call,
    make_charge,
    make_event,
    read_events,
    run,
    succeed,
)
from tools.contract import Effect

HOUR = timedelta(hours=1)
LONG_AGO = START - 100 * HOUR
FLOW = Workflow("acme", "prod", "f1", "desk", "refund A-1042", "spiffe://x/o", START, START + HOUR)
OWN = FLOW.name.agent_itself
LATER = START + timedelta(minutes=1)


def make_imprint(name: WorkflowName = FLOW.name, **changes: object) -> Imprint:
    imprint = Imprint(name, "c1", START, LONG_AGO, ("tool:a", "untrusted"), (b"m1",))
    return replace(imprint, **changes)  # type: ignore[arg-type]


async def texts(store: Store, name: WorkflowName) -> list[str]:
    return [label.label for label in await store.workflow_labels(name)]


async def test_reads_a_workflow_that_was_opened(store: Store) -> None:
    await store.open_workflow(FLOW, make_event(kind="workflow.opened"))
    assert await store.find_workflow("acme", "f1") == FLOW
    assert len(await read_events(store, "workflow.opened")) == 1


async def test_opens_no_second_one_under_an_id(store: Store) -> None:
    await store.open_workflow(FLOW, make_event())
    with pytest.raises(StoreError):
        await store.open_workflow(replace(FLOW, tenant="rival"), make_event("rival"))
    assert await store.find_workflow("rival", "f1") is None


async def test_keeps_what_a_reservation_leaves_for_workflow_and_agent(store: Store) -> None:
    call = make_call("c1", workflow="f1")
    await store.reserve(call, None, (), event_of(call), make_imprint())
    assert [await texts(store, name) for name in (FLOW.name, OWN)] == [["tool:a", "untrusted"]] * 2
    (label, _), (own, _) = [await store.workflow_labels(name) for name in (FLOW.name, OWN)]
    assert (label.call_id, label.since, label.last, label.last_bare) == ("c1", START, START, None)
    assert own.last_bare is None


async def test_says_when_content_came_without_a_handle(store: Store) -> None:
    await store.append_audit(make_event(), make_imprint(OWN))
    await store.append_audit(make_event(), make_imprint(at=LATER))
    (label, _) = await store.workflow_labels(OWN)
    assert (label.since, label.last, label.last_bare) == (START, LATER, START)


async def test_leaves_nothing_where_nothing_was_reserved(store: Store) -> None:
    call = make_call("c1")
    await store.reserve(call, None, (make_charge(limit=1),), event_of(call))
    second = make_call("c2")
    with pytest.raises(BudgetExhausted):
        await store.reserve(second, None, (make_charge(limit=1),), event_of(second), make_imprint())
    assert await texts(store, FLOW.name) == []


async def test_leaves_nothing_with_an_end_that_is_none(store: Store) -> None:
    ended = await succeed(store, make_call("c1"))
    with pytest.raises(StoreError):
        await store.complete(ended, event_of(ended), imprint=make_imprint())
    assert await texts(store, FLOW.name) == []
    assert not (await store.workflow_marks(LONG_AGO)).trusted


@pytest.mark.parametrize("is_behind", [True, False])
async def test_keeps_what_an_end_leaves(store: Store, is_behind: bool) -> None:
    call = make_call("c1", effect=Effect.READ, state=CallState.DISPATCHED, grant_id="")
    await store.reserve(call, None, (), event_of(call))
    ended = replace(call, epoch=store.epoch.number, state=CallState.SUCCEEDED, ended=START)
    await store.complete(ended, event_of(ended), behind=tuple if is_behind else None, imprint=make_imprint())
    marks = await store.workflow_marks(LONG_AGO)
    assert list(marks.trusted) == [(FLOW.name, b"m1", START)]
    assert len(marks.labels) == 4


async def test_takes_over_when_it_came_last_and_what_brought_it_first(store: Store) -> None:
    await store.append_audit(make_event(), make_imprint())
    await store.append_audit(make_event(), make_imprint(call_id="c2", at=LATER))
    await store.append_audit(make_event(), make_imprint(call_id="c3"))
    (label, _) = await store.workflow_labels(FLOW.name)
    assert (label.call_id, label.since, label.last) == ("c1", START, LATER)


async def test_forgets_trusted_destinations_that_are_too_old(store: Store) -> None:
    await store.append_audit(make_event(), make_imprint())
    newer = make_imprint(at=LATER, forget_before=LATER, trusted=(b"m2",))
    await store.append_audit(make_event(), newer)
    assert [mac for _, mac, _ in (await store.workflow_marks(LONG_AGO)).trusted] == [b"m2"]


async def test_keeps_them_over_a_restart(place: StorePlace) -> None:
    store = place.open()
    await store.open_workflow(FLOW, make_event())
    await store.append_audit(make_event(), make_imprint())
    again = place.open()
    marks = await again.workflow_marks(LONG_AGO)
    assert list(marks.workflows) == [FLOW]
    assert {(name.workflow_id, label.label) for name, label in marks.labels} == {
        (flow, label) for flow in ("", "f1") for label in ("tool:a", "untrusted")
    }


async def test_removes_what_ended_long_ago(store: Store) -> None:
    await store.open_workflow(FLOW, make_event())
    await store.append_audit(make_event(), make_imprint())
    live = replace(FLOW, workflow_id="f2", expires=START + 100 * HOUR)
    await store.open_workflow(live, make_event())
    marks = await store.workflow_marks(START + 2 * HOUR)
    assert (list(marks.workflows), marks.labels, marks.trusted) == ([live], [], [])
    assert await store.find_workflow("acme", "f1") is None


async def test_records_the_workflow_of_a_call_for_ever(store: Store) -> None:
    call = await run(store, make_call("c1", workflow="f1"))
    await store.complete(replace(call, workflow="f2", state=CallState.FAILED), event_of(call))
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.workflow == "f1"


async def test_erases_descriptions_and_destinations_and_no_label(store: Store) -> None:
    other = replace(FLOW, tenant="rival", workflow_id="f2")
    for flow in (FLOW, other):
        await store.open_workflow(flow, make_event(flow.tenant))
    await store.append_audit(make_event(), make_imprint())
    await store.erase_tenant("acme", make_event())
    assert await store.find_workflow("acme", "f1") == replace(FLOW, description="")
    assert await store.find_workflow("rival", "f2") == other
    assert await texts(store, FLOW.name) == ["tool:a", "untrusted"]


async def test_erases_whom_the_results_of_one_tenant_named(store: Store) -> None:
    for name in (FLOW.name, FLOW.name._replace(tenant="rival")):
        await store.append_audit(
            make_event(name.tenant), replace(make_imprint(), workflow=name, trusted=(b"m",))
        )
    await store.erase_tenant("acme", make_event())
    marks = await store.workflow_marks(START)
    assert [name.tenant for name, _, _ in marks.trusted] == ["rival"]


async def test_says_when_it_was_restored(place: StorePlace) -> None:
    assert place.open().restored_at is None
    place.mark_restored(0)
    assert place.open().restored_at == START


# --- tenants ---------------------------------------------------------------------------------------------
async def test_shows_b_no_workflow_of_a(store: Store) -> None:
    await store.open_workflow(FLOW, make_event())
    for tenant in ("rival", ""):
        assert await store.find_workflow(tenant, "f1") is None


async def test_shows_b_no_label_of_a(store: Store) -> None:
    await store.append_audit(make_event(), make_imprint())
    for name in (FLOW.name, OWN):
        assert await texts(store, name._replace(tenant="rival")) == []
        assert await texts(store, name._replace(agent="other")) == []
        assert await texts(store, name._replace(environment="dev")) == []


async def test_does_not_let_b_change_what_a_holds(store: Store) -> None:
    await store.append_audit(make_event(), make_imprint())
    forged = make_imprint(FLOW.name._replace(tenant="rival"), at=LATER, forget_before=LATER, call_id="c2")
    await store.append_audit(make_event("rival"), forged)
    (label, _) = await store.workflow_labels(FLOW.name)
    assert (label.call_id, label.last) == ("c1", START)
    trusted = (await store.workflow_marks(LONG_AGO)).trusted
    assert {(name.tenant, at) for name, _, at in trusted} == {("acme", START), ("rival", LATER)}
