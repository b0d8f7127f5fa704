"""What the pool does is counted, and a sandbox that is busy without a call is told to people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.pool_record import IdleCount, PoolRecord
from broker.store.records import AuditEvent, StoreError
from sandboxes.pool_watch import Why
from tests.sandboxes.yard import LOOKUP, opened

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Audit:
    """Keeps what it gets, or fails."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.fails = False

    async def append(self, event: AuditEvent) -> None:
        if self.fails:
            raise StoreError("disk full")
        self.events.append(event)


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def record(registry: CollectorRegistry, audit: Audit) -> PoolRecord:
    return PoolRecord(registry, audit.append, lambda: NOW)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_counts_hits_and_misses_and_how_old_the_hits_were(record: PoolRecord, registry: CollectorRegistry):
    record.taken(LOOKUP, None)
    record.taken(LOOKUP, 3.0)
    assert value(registry, "toolcrib_sandboxes_taken_total", tool="shop 1.0.0", found="cold") == 1
    assert value(registry, "toolcrib_sandboxes_taken_total", tool="shop 1.0.0", found="warm") == 1
    assert value(registry, "toolcrib_sandbox_age_seconds_sum") == 3.0


def test_counts_what_is_made_and_how_long_it_took(record: PoolRecord, registry: CollectorRegistry):
    record.made(LOOKUP, 0.2, warm=True)
    record.made(LOOKUP, 0.1, warm=False)
    labels: dict[str, Any] = {"tool": "shop 1.0.0", "as": "stock"}
    assert registry.get_sample_value("toolcrib_sandboxes_made_total", labels) == 1
    assert value(registry, "toolcrib_sandbox_make_seconds_count") == 2


def test_counts_refusals_failures_and_ends(record: PoolRecord, registry: CollectorRegistry):
    record.refused(LOOKUP)
    record.failed(LOOKUP, "it cannot be loaded")
    record.ended(LOOKUP, Why.RETIRED)
    for name, labels in (
        ("toolcrib_sandboxes_refused_total", {}),
        ("toolcrib_sandboxes_failed_total", {}),
        ("toolcrib_sandboxes_ended_unused_total", {"why": "retired"}),
    ):
        assert value(registry, name, tool="shop 1.0.0", **labels) == 1


async def test_tells_people_of_one_that_is_busy_without_a_call(
    record: PoolRecord, registry: CollectorRegistry, audit: Audit, caplog: pytest.LogCaptureFixture
):
    record.flagged(LOOKUP, 0.5)
    await record.close()
    (event,) = audit.events
    assert (event.kind, event.tenant, event.at) == ("sandbox.flagged", "shop", NOW)
    assert event.details == {"tool": "shop 1.0.0", "digest": "d1", "cpu_percent": 50.0}
    assert value(registry, "toolcrib_sandboxes_flagged_total", tool="shop 1.0.0") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_says_when_the_audit_does_not_take_it(
    record: PoolRecord, audit: Audit, caplog: pytest.LogCaptureFixture
):
    audit.fails = True
    record.flagged(LOOKUP, 0.5)
    await record.close()
    assert "not in the audit" in caplog.text


async def test_shows_how_many_wait_by_tool(registry: CollectorRegistry):
    async with opened() as yard:
        registry.register(IdleCount(yard.pool))
        await yard.fill()
        page = generate_latest(registry).decode()
        assert f'toolcrib_sandboxes_idle{{tool="shop 1.0.0"}} {float(yard.idle())}' in page
