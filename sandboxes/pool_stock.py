"""What a pool holds: kinds of sandboxes, a shelf for each kind, and the single sandboxes on it.

A `Holder` is one sandbox, from the moment at which it is begun until none of it is left. A task holds it all
that time. It is handed to one call at most, and then never comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field

from sandboxes.nests import HttpWish, Nest
from sandboxes.outcome import Limits
from sandboxes.pool_size import Demand, Mean
from sandboxes.sandbox import Sandbox

_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes two sandboxes interchangeable; a call only gets one of exactly its own kind.

    Attributes:
        tenant: Whose calls. Tenants never share a sandbox, not even an unused one.
        tool: Bundle and version, for people: "shop 1.2.0".
        digest: Of the tool version.
        isolation: The class: "container" or "strong".
        has_nest: Whether any of its tools has a way out.
        http: Where any of its tools speaks HTTP.
        terms: What the tenant's grants say about its tools' limits; others make another kind.
    """

    tenant: str
    tool: str
    digest: str
    isolation: str
    image_id: str
    command: tuple[str, ...]
    limits: Limits
    has_nest: bool = False
    http: HttpWish | None = None
    terms: str = ""


class Holder:
    """One sandbox and the task that holds it.

    Attributes:
        sandbox: None until it is made.
        nest: None where it has none.
        over: Set when it has to end.
        taken: True once a call has it.
        offered: When it was ready for a call, on the pool's clock.
        looked: When its processor time was read last, and what it was.
        is_made: True once it is ready or was handed over; from then on `over` is waited for.
        has_maker: Whether a maker is busy with it.
        may_linger: True once its call has said that its end may wait for a lull.
    """

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind, self.number = kind, number
        self.sandbox: Sandbox | None = None
        self.nest: Nest | None = None
        self.over = asyncio.Event()
        self.taken = False
        self.offered = 0.0
        self.looked: tuple[float, float | None] = (0.0, None)
        self.task: asyncio.Task[None] | None = None
        self.is_made, self.has_maker, self.may_linger = False, True, False

    def release(self) -> None:
        """Let it end; one that is not ready is broken off."""
        self.over.set()
        if self.task is not None and not self.is_made:
            self.task.cancel()

    @property
    def is_fit(self) -> bool:
        """Whether a call can be given it now."""
        if self.sandbox is None or self.over.is_set() or self.is_lost:
            return False
        return self.sandbox.is_alive

    @property
    def is_lost(self) -> bool:
        """Whether the egress process that could serve it is gone."""
        return self.nest is not None and self.nest.lost.is_set()


class NotLoaded(Exception):
    """A sandbox was made, and did not come to wait for a call."""


class Ticket:
    """A call that waits for a sandbox of its kind."""

    def __init__(self, queue: deque[Ticket]) -> None:
        """Stand at the end of a queue."""
        self.got: asyncio.Future[Holder] = asyncio.get_running_loop().create_future()
        self._queue = queue
        queue.append(self)

    def drop(self) -> Holder | None:
        """Wait no longer; returns a sandbox that came meanwhile."""
        self.got.cancel()
        with contextlib.suppress(ValueError):
            self._queue.remove(self)  # nothing is made for who is gone
        if self.got.cancelled() or self.got.exception() is not None:
            return None
        return self.got.result()


@dataclass(eq=False, slots=True)
class Shelf:
    """Everything of one kind.

    Attributes:
        idle: Those that wait, the oldest first.
        waiting: Calls that wait, the first first.
        making: How many are being made.
        begun: Number of the one that was begun last: whose turn it is.
        rests_until: No stock is made before; set when one failed.
    """

    kind: Kind
    make: Mean
    idle: deque[Holder] = field(default_factory=deque)
    waiting: deque[Ticket] = field(default_factory=deque)
    making: int = 0
    begun: int = 0
    demand: Demand = field(default_factory=Demand)
    rests_until: float = 0.0
    failures: int = 0

    @property
    def uncovered(self) -> int:
        """Calls that wait and for which none is being made."""
        return max(0, len(self.waiting) - self.making)

    @property
    def stock(self) -> int:
        """Those that wait or soon will."""
        return len(self.idle) + max(0, self.making - len(self.waiting))

    def pop_fit(self) -> tuple[Holder | None, list[Holder]]:
        """Take the oldest one that is fit; also returns those that were not."""
        unfit: list[Holder] = []
        while self.idle:
            holder = self.idle.popleft()
            if holder.is_fit:
                return holder, unfit
            unfit.append(holder)
        return None, unfit

    def hand_over(self, holder: Holder) -> bool:
        """Give a sandbox to the first call that waits; False when none does."""
        while self.waiting:
            ticket = self.waiting.popleft()
            if not ticket.got.done():
                holder.taken = True
                ticket.got.set_result(holder)
                return True
        return False

    def fail_first(self, error: Exception) -> bool:
        """Tell the first call that waits why it gets none; False when none waits."""
        while self.waiting:
            ticket = self.waiting.popleft()
            if not ticket.got.done():
                ticket.got.set_exception(error)
                return True
        return False

    def note_failure(self, now: float) -> None:
        """Make no stock for a while, longer with each failure: a tool that cannot load costs little."""
        pause = min(_FIRST_REST_SECONDS * 2**self.failures, _LONGEST_REST_SECONDS)
        self.failures = min(self.failures + 1, 16)
        self.rests_until = now + pause

    def note_success(self) -> None:
        """Forget the failures before."""
        self.failures, self.rests_until = 0, 0.0
