"""In front of stage 7: a call gets its place in a sandbox, or is refused, before anything is reserved for it.

Rules:
1. It waits for nothing: a warm sandbox is taken, a cold one is begun or queued, or the call is refused with
   the time after which asking again can help (sandboxes/admission.py: fair by tenant).
2. A cold one is made while the call is reserved and its credentials are minted.
3. Whatever becomes of the call, its sandbox ends with it; one that got nothing of the call, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import Refused
from broker.model import Call
from broker.stock import Stock
from sandboxes.admission import NoPlace
from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool import Pool
from sandboxes.pool_place import Place
from toolcrib.v1.reasons_pb2 import Reason


class Placer:
    """Gives calls their places."""

    def __init__(self, pool: Pool, stock: Stock) -> None:
        self._pool, self._stock = pool, stock

    @contextmanager
    def __call__(self, call: Call) -> Iterator[Place]:
        """Hold a call's place.

        Raises:
            Refused: TOO_MANY_CALLS with the time to wait; SANDBOX_UNAVAILABLE where nothing serves its class.
        """
        place = self._take(call)
        try:
            yield place
        finally:
            place.leave()

    def _take(self, call: Call) -> Place:
        kind = self._stock.kind(call.caller.tenant, call.version)
        try:
            return self._pool.take(kind, call.deadline - time.monotonic())
        except NoPlace as error:
            raise Refused(
                Reason.REASON_TOO_MANY_CALLS,
                f"all sandboxes are taken ({error}); nothing ran, retry later",
                retry_after_seconds=error.retry_after_seconds,
            ) from error
        except SandboxUnavailable as error:
            raise Refused(Reason.REASON_SANDBOX_UNAVAILABLE, f"nothing ran: {error}") from error
