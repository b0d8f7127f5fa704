"""Fencing: an attempt in doubt can have no effect any more, and that is known.

Before an outcome is asked for, all of this is gone and confirmed, in this order:

1. the containers that the record names: by the engine, and by the kernel where the engine forgot them;
2. the way out: a call's own end closes it; of an older broker the egress process is ended by this one;
3. the call's logins: each lease is dead by look-up, and with it its open sessions.

What is already on its way inside the target is not ours to end: that is what `settle_seconds` is for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.debts import Debts
from broker.model import CallRecord
from sandboxes.fleet import Fleet
from sandboxes.outcome import SandboxError


class NotFenced(Exception):
    """Something of the attempt may still act; the message says what. Try again."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Proof that an attempt is fenced. Only `Fence` makes one.

    Attributes:
        since: When the last part was confirmed gone, on the monotonic clock.
    """

    call_id: str
    since: float


EndRemains = Callable[[], Awaitable[list[str]]]
"""Ends the egress processes of older brokers; returns what could not be ended."""


class Fence:
    """Ends what is left of an attempt, whichever broker made it."""

    def __init__(self, fleet: Fleet, debts: Debts, end_remains: EndRemains, epoch: int) -> None:
        self._fleet, self._debts, self._end_remains, self._epoch = fleet, debts, end_remains, epoch

    async def __call__(self, call: CallRecord) -> Fenced:
        """Fence an attempt.

        Raises:
            NotFenced: A part of it is not confirmed gone.
        """
        await self._end_sandboxes(call)
        if call.epoch != self._epoch:
            left = await self._end_remains()
            if left:
                raise NotFenced(f"an older broker's egress process is still there: {', '.join(left)}")
        for lease in call.leases:
            if lease.confirmed_dead is None and await self._debts.end(call.call_id, lease) is None:
                raise NotFenced(f"the end of the login {lease.username or lease.credential} is not confirmed")
        return Fenced(call.call_id, time.monotonic())

    async def _end_sandboxes(self, call: CallRecord) -> None:
        try:
            if call.epoch != self._epoch:
                await self._fleet.reap()  # also one that was made and not written down
            for sandbox in call.sandboxes:
                if sandbox.container_id and not await self._fleet.end_container(sandbox.container_id):
                    raise NotFenced(f"container {sandbox.container_id[:12]} still has processes")
        except (SandboxError, ValueError) as error:
            raise NotFenced(f"its sandbox is not confirmed gone: {error}") from error
