"""The door's limits, before any work: only agents, size of a request, calls in flight by tenant and in all.

Belongs to stage 1: it needs the tenant and must come before the request's bytes are read as a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from broker.errors import Refused
from broker.model import Caller, Role
from broker.request import Request
from broker.settings import Tenant
from toolcrib.v1.reasons_pb2 import Reason

RETRY_AFTER_SECONDS = 0.5


class Admission:
    """Counts the calls in flight and turns away what is over a limit."""

    def __init__(self, tenants: Mapping[str, Tenant], max_calls: int) -> None:
        self._tenants = tenants
        self._max_calls = max_calls
        self._in_flight: Counter[str] = Counter()

    @property
    def calls_in_flight(self) -> int:
        """How many calls hold a place now, over all tenants."""
        return self._in_flight.total()

    @contextmanager
    def __call__(self, caller: Caller, request: Request) -> Iterator[None]:
        """Hold a place for one call.

        Raises:
            Refused: ROLE_REQUIRED, REQUEST_TOO_LARGE, or TOO_MANY_CALLS with the time to wait.
        """
        if caller.role is not Role.AGENT:  # a person of the same name must not get at an agent's answers
            raise Refused(
                Reason.REASON_ROLE_REQUIRED,
                f"tools are called by agents; this certificate says {caller.role}",
            )
        limits = self._tenants[caller.tenant]
        size = len(request.raw_input) + len(request.method.encode())
        if size > limits.max_request_bytes:
            raise Refused(
                Reason.REASON_REQUEST_TOO_LARGE,
                f"the request has {size} bytes; this tenant's limit is {limits.max_request_bytes}",
            )
        if self._in_flight[caller.tenant] >= limits.max_concurrent_calls:
            raise _too_many(f"the tenant has {limits.max_concurrent_calls} calls in flight, its limit")
        if self.calls_in_flight >= self._max_calls:
            raise _too_many(f"the broker has {self._max_calls} calls in flight, its limit")
        self._in_flight[caller.tenant] += 1
        try:
            yield
        finally:
            self._in_flight[caller.tenant] -= 1


def _too_many(message: str) -> Refused:
    return Refused(
        Reason.REASON_TOO_MANY_CALLS, f"{message}; retry later", retry_after_seconds=RETRY_AFTER_SECONDS
    )
