"""What Prometheus reads; names and labels are stable, values never hold arguments or secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from broker.connections import NO_TARGET
from sandboxes.egress.records import ConnectionRecord

_MAX_TARGETS = 512
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters and histograms of one broker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "toolcrib_calls", "Calls by tool and outcome", ["tool", "outcome"], registry=self.registry
        )
        self.call_seconds = Histogram(
            "toolcrib_call_seconds",
            "From arrival to answer",
            ["tool"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "toolcrib_stage_seconds", "By stage", ["stage"], buckets=_BUCKETS, registry=self.registry
        )
        self.connections = Counter(
            "toolcrib_egress_connections",
            "What tools connected to or tried to, by the operator's name of the target and outcome",
            ["target", "outcome"],
            registry=self.registry,
        )
        self._targets: set[str] = set()
        self.refusals = Counter(
            "toolcrib_refusals",
            "Refusals by the broker's own services",
            ["reason"],
            registry=self.registry,
        )

    def count_connections(self, records: Sequence[ConnectionRecord]) -> None:
        """Count what a call connected to."""
        for record in records:
            self.connections.labels(self._bound(record.target or NO_TARGET), str(record.outcome)).inc()

    def _bound(self, target: str) -> str:
        """Bound the labels, though names come from a process that reads hostile bytes."""
        if len(self._targets) < _MAX_TARGETS:
            self._targets.add(target)
        return target if target in self._targets else "other"

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when Prometheus asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def serve(self, listen: str) -> Callable[[], None]:
        """Serve the page on host:port; returns what stops it."""
        host, _, port = listen.rpartition(":")
        server, thread = start_http_server(int(port), host, self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
