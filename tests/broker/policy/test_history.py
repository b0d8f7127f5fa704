"""The age of a grant: since when it stands as it does, not since when its file was applied."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from broker.policy.history import GrantHistory
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent
from tests.broker.policy.conftest import NOW


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def apply(store: MemoryStore, *changes: str, day: int, tenant: str = "shop") -> datetime:
    at = NOW + timedelta(days=day)
    await store.append_audit(AuditEvent("grants.applied", tenant, "", at, details={"changes": list(changes)}))
    return at


async def test_keeps_the_age_of_what_a_later_plan_left_alone(store: MemoryStore):
    first = await apply(store, "ADD read", "ADD draft", day=0)
    second = await apply(store, "REPLACE draft", day=1)
    assert await GrantHistory(store).applied("shop") == {"read": first, "draft": second}


async def test_forgets_what_was_removed(store: MemoryStore):
    await apply(store, "ADD read", day=0)
    await apply(store, "REMOVE read", day=1)
    again = await apply(store, "ADD read", day=2)
    assert await GrantHistory(store).applied("shop") == {"read": again}


async def test_sees_what_was_applied_since_it_last_looked(store: MemoryStore):
    history = GrantHistory(store)
    await apply(store, "ADD read", day=0)
    await history.applied("shop")
    later = await apply(store, "REPLACE read", day=1)
    assert await history.applied("shop") == {"read": later}


async def test_knows_nothing_of_another_tenant(store: MemoryStore):
    await apply(store, "ADD read", day=0, tenant="rival")
    assert await GrantHistory(store).applied("shop") == {}


async def test_is_not_misled_by_a_call_that_speaks_of_it(store: MemoryStore):
    said = {"changes": ["ADD read"], "method": "grants.applied"}
    await store.append_audit(AuditEvent("call.refused", "shop", "", NOW, details=said))
    assert await GrantHistory(store).applied("shop") == {}
