"""What becomes of the pool's sandboxes: metrics, log, and the audit for one that is flagged.

A sandbox that uses the processor while it has no call runs something that its author put there for another
time. Its version is named in the audit, so that people look at it; what a call gets is another sandbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.store.records import AuditEvent, StoreError
from sandboxes.pool import Pool
from sandboxes.pool_stock import Kind
from sandboxes.pool_watch import Why

log = logging.getLogger(__name__)

Append = Callable[[AuditEvent], Awaitable[None]]

_AGES = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 240, 600)
_MAKINGS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10)


class PoolRecord:
    """Keeps the pool's numbers; a `PoolWatch`."""

    def __init__(self, registry: CollectorRegistry, append: Append, clock: Callable[[], datetime]) -> None:
        """Prepare the metrics.

        Args:
            registry: Where they are shown.
            append: Writes an event to the audit.
            clock: UTC.
        """
        self._append, self._clock = append, clock
        self._writing: set[asyncio.Task[None]] = set()
        self._taken = Counter(
            "toolcrib_sandboxes_taken",
            "Places that calls got, by whether the sandbox was warm",
            ["tool", "found"],
            registry=registry,
        )
        self._refused = Counter(
            "toolcrib_sandboxes_refused", "Calls that got no place", ["tool"], registry=registry
        )
        self._made = Counter(
            "toolcrib_sandboxes_made",
            "Made, for a call or as stock",
            ["tool", "as"],
            registry=registry,
        )
        self._failed = Counter(
            "toolcrib_sandboxes_failed", "Not made, or not loaded", ["tool"], registry=registry
        )
        self._ended = Counter(
            "toolcrib_sandboxes_ended_unused",
            "Ended without a call",
            ["tool", "why"],
            registry=registry,
        )
        self._flagged = Counter(
            "toolcrib_sandboxes_flagged",
            "Killed: busy without a call",
            ["tool"],
            registry=registry,
        )
        self._age = Histogram(
            "toolcrib_sandbox_age_seconds", "Of warm ones when taken", buckets=_AGES, registry=registry
        )
        self._make_seconds = Histogram(
            "toolcrib_sandbox_make_seconds", "How long a maker was busy", buckets=_MAKINGS, registry=registry
        )

    def taken(self, kind: Kind, age_seconds: float | None) -> None:
        """Count a place, and the age of a warm one."""
        self._taken.labels(kind.tool, "cold" if age_seconds is None else "warm").inc()
        if age_seconds is not None:
            self._age.observe(age_seconds)

    def refused(self, kind: Kind) -> None:
        """Count a refusal."""
        self._refused.labels(kind.tool).inc()

    def made(self, kind: Kind, seconds: float, *, warm: bool) -> None:
        """Count a making, and its time."""
        self._made.labels(kind.tool, "stock" if warm else "for_call").inc()
        self._make_seconds.observe(seconds)

    def failed(self, kind: Kind, cause: str) -> None:
        """Count a failure and say why."""
        self._failed.labels(kind.tool).inc()
        log.warning("no sandbox made", extra={"tenant": kind.tenant, "cause": f"{kind.tool}: {cause[:500]}"})

    def ended(self, kind: Kind, why: Why) -> None:
        """Count an end."""
        self._ended.labels(kind.tool, why.value).inc()

    def flagged(self, kind: Kind, cpu_share: float) -> None:
        """Count it, say it loudly, and write it to the audit."""
        self._flagged.labels(kind.tool).inc()
        facts = {"tool": kind.tool, "digest": kind.digest, "cpu_percent": round(cpu_share * 100, 1)}
        cause = f"{kind.tool}: {cpu_share:.1%} of a processor without a call"
        log.warning("sandbox flagged", extra={"tenant": kind.tenant, "cause": cause})
        event = AuditEvent("sandbox.flagged", kind.tenant, "", self._clock(), details=facts)
        task = asyncio.create_task(self._write(event), name="sandbox.flagged")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _write(self, event: AuditEvent) -> None:
        try:
            await self._append(event)
        except StoreError as error:
            log.error("not in the audit", extra={"cause": f"{event.kind}: {error}"})


class IdleCount(Collector):
    """Shows how many sandboxes wait, by tool, when Prometheus asks."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Count them."""
        found: dict[str, int] = {}
        for kind, shelf in list(self._pool.shelves.items()):
            found[kind.tool] = found.get(kind.tool, 0) + len(shelf.idle)
        family = GaugeMetricFamily("toolcrib_sandboxes_idle", "Waiting for a call", labels=["tool"])
        for tool, count in found.items():
            family.add_metric([tool], count)
        yield family
