"""The warm pool: sandboxes that wait, loaded, for calls that have not come yet. Each serves one call.

    place = pool.take(kind, patience_seconds)     # at once: a warm one, a place in the queue, or NoPlace
    try:
        holder = await place.sandbox()            # now, or when one was made
    finally:
        place.leave()                             # it ends, whether it was used or not

Rules:
1. A sandbox is handed to one call at most, of exactly its own kind, and ends after it.
2. At most `makers` are made at once. Tenants are served in turn: of each first what its calls wait for, then
   its stock, so that nobody's flood starves another's stock. Stock that is not short is filled up in quiet
   moments: to make one costs the calls that run their processor.
3. Stock follows demand (sandboxes/pool_size.py), shrinks when nobody calls, down to nothing, and is bounded
   in number and by memory (sandboxes/pool_memory.py). What waits gives way to what runs.
4. What waits is looked at all the time (sandboxes/pool_review.py). What is dead, old, busy, not wanted any
   more, or has lost its way out is ended and never handed out.
5. One that cannot be made or loaded is told to the call that waits for it. Stock of its kind then rests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack

from sandboxes.admission import NoPlace, Turns, count_waiting, find_wait
from sandboxes.nests import HttpWish, Nest
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.pool_lull import Lull
from sandboxes.pool_memory import Memory
from sandboxes.pool_place import Place
from sandboxes.pool_size import Mean, PoolTerms, find_stock, idle_mib, running_mib, share_out
from sandboxes.pool_stock import Holder, Kind, NotLoaded, Shelf, Ticket
from sandboxes.pool_watch import PoolWatch, Silence, Why
from sandboxes.sandbox import Driver, Sandbox

log = logging.getLogger(__name__)

MakeNest = Callable[[int, HttpWish | None], AbstractContextManager[Nest]]

WARM_UP_SECONDS = 20.0
FIRST_GUESS_SECONDS = 0.2
LONGEST_MAKING_SECONDS = 1.0
"""A maker waits no longer for a handler that loads: how long that takes is the tool's author's to say."""
COLD_IDLE_SECONDS = 30.0
"""A sandbox that is made for a call waits for it, and for its mint, this long at least."""
QUIET_SECONDS = 0.05


class Pool:
    """The waiting sandboxes of one broker, and the makers that make them and those of waiting calls.

    Attributes:
        is_wanted: Whether sandboxes of a kind may wait at all, as things are now. The broker's to set.
    """

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        make_nest: MakeNest,
        terms: PoolTerms,
        watch: PoolWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a pool; nothing is made before there is a call.

        Args:
            drivers: By isolation class.
            make_nest: Holds a nest for a user id, with an authority of its own where HTTP is spoken.
            terms: The operator's.
            watch: Told what happens.
            clock: Monotonic, seconds.
        """
        self.is_wanted: Callable[[Kind], bool] = lambda _kind: True
        self.terms, self.watch, self.clock = terms, watch or Silence(), clock
        self.shelves: dict[Kind, Shelf] = {}
        self.lull = Lull()
        self._drivers, self._make_nest = drivers, make_nest
        self._holders: set[Holder] = set()
        self._making = 0
        self._number = 0
        self._memory = Memory(terms.memory_mib)
        self._make = Mean(FIRST_GUESS_SECONDS)
        self._turns = Turns()
        self._closed = False
        self._last_taken = -math.inf
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> list[str]:
        """The container ids of those that wait."""
        held = [holder.sandbox for shelf in list(self.shelves.values()) for holder in list(shelf.idle)]
        return [sandbox.container_id for sandbox in held if sandbox is not None]

    def serves(self, isolation: str) -> bool:
        """Tell whether there is a driver for a class."""
        return isolation in self._drivers

    def take(self, kind: Kind, patience_seconds: float) -> Place:
        """Get a place for one call, at once; whoever gets it leaves it.

        Raises:
            NoPlace: All places are taken, and it would wait too long.
            SandboxUnavailable: No driver serves the class, or the pool is closed.
        """
        if not self.serves(kind.isolation):
            raise SandboxUnavailable(
                f'no driver serves the class "{kind.isolation}"; the operator maps it in sandboxes.classes'
            )
        if self._closed:
            raise SandboxUnavailable("the pool is closed")
        now = self._last_taken = self.clock()
        self.lull.note_call()
        shelf = self._shelf(kind)
        shelf.demand.note(now)
        try:
            place = self._admit(shelf, now, patience_seconds)
        except NoPlace:
            self.watch.refused(kind)
            raise
        self.schedule()
        return place

    def enqueue(self, shelf: Shelf) -> Ticket:
        """Let a call wait for a sandbox that is made for it."""
        ticket = Ticket(self.shelves.setdefault(shelf.kind, shelf).waiting)
        if self._closed:
            ticket.got.set_exception(SandboxUnavailable("the pool is closed"))
        self.schedule()
        return ticket

    def free(self, place: Place) -> None:
        """Give back what a place took, once nothing of its sandbox takes memory. For `Place.leave`."""
        if place.ending is not None and not place.ending.done():
            place.ending.add_done_callback(lambda _: self.free(place))
            return
        self._memory.give_back(place.tenant, place.charge_mib)
        self.schedule()

    def schedule(self) -> None:
        """Give the makers something to do, as long as there is something and one is free."""
        while not self._closed and self._making < self.terms.makers:
            chosen = self._choose()
            if chosen is None:
                return
            self._begin(*chosen)

    def wants(self) -> dict[Kind, int]:
        """Say how many of each kind should wait now, within the bounds of all."""
        now, terms = self.clock(), self.terms
        rates = {kind: shelf.demand.rate(now) for kind, shelf in self.shelves.items()}
        asked = sum(rate * self.shelves[kind].make.seconds for kind, rate in rates.items())
        busy = asked / max(terms.makers, 1)
        wanted = {
            kind: max(terms.least_idle, find_stock(rates[kind], shelf.make.seconds, busy))
            for kind, shelf in self.shelves.items()
            if now - shelf.demand.last < terms.idle_seconds and self.is_wanted(kind)
        }
        return share_out(wanted, lambda kind: kind.tenant, terms.max_idle)

    def end_idle(self, shelf: Shelf, holder: Holder, why: Why) -> None:
        """End one that waits."""
        shelf.idle.remove(holder)
        holder.release()
        self.watch.ended(shelf.kind, why)

    def forget_unused(self) -> None:
        """Keep no shelf of what nobody has asked for in a long while."""
        now = self.clock()
        for kind, shelf in list(self.shelves.items()):
            used = shelf.idle or shelf.waiting or shelf.making
            if not used and now - shelf.demand.last >= self.terms.idle_seconds:
                del self.shelves[kind]
        self._turns.forget({kind.tenant for kind in self.shelves})

    async def close(self) -> None:
        """End every sandbox, and wait until none is left; calls that wait are told."""
        self._closed = self.lull.over = True
        if self._alarm is not None:
            self._alarm.cancel()
        for shelf in self.shelves.values():
            while shelf.fail_first(SandboxUnavailable("the broker is shutting down")):
                pass
        holding = [holder.task for holder in self._holders if holder.task is not None]
        for holder in list(self._holders):
            holder.release()
        if holding:
            await asyncio.wait(holding)

    def _shelf(self, kind: Kind) -> Shelf:
        if kind not in self.shelves:
            self.shelves[kind] = Shelf(kind, Mean(self._make.seconds))
        return self.shelves[kind]

    def _admit(self, shelf: Shelf, now: float, patience_seconds: float) -> Place:
        kind = shelf.kind
        charge = self._charge(kind, running_mib)
        holder = self._take_idle(shelf)
        if not self._memory.admits(kind.tenant, charge, {one.tenant for one in self.shelves}):
            if holder is not None:
                shelf.idle.appendleft(holder)
            raise NoPlace("sandboxes have all the memory that they may have", self._make.seconds)
        if holder is None:
            self._check_wait(shelf, patience_seconds)
        self._make_room(kind.tenant, charge)  # only now: nothing gives way to a call that is refused
        self._memory.take(kind.tenant, charge)
        if holder is not None:
            holder.taken, shelf.failures = True, 0
        self.watch.taken(kind, now - holder.offered if holder else None)
        return Place(self, shelf, holder, charge)

    def _take_idle(self, shelf: Shelf) -> Holder | None:
        holder, unfit = shelf.pop_fit()
        for one in unfit:
            one.release()
            self.watch.ended(shelf.kind, Why.EGRESS_LOST if one.is_lost else Why.DIED)
        return holder

    def _check_wait(self, shelf: Shelf, patience_seconds: float) -> None:
        if shelf.making > len(shelf.waiting):
            return  # one is on its way that nobody waits for
        makers, tenant = self.terms.makers, shelf.kind.tenant
        stock = {one.kind.tenant: 1 for one in self._find_short(self.wants()) if one.kind.tenant != tenant}
        waiting = stock | count_waiting(self.shelves.values())
        wait = find_wait(tenant, waiting, makers - self._making, makers, self._make.seconds)
        if wait > min(self.terms.max_wait_seconds, patience_seconds):
            raise NoPlace(f"a sandbox would be begun in {wait:.1f} s only", wait)

    def _charge(self, kind: Kind, rule: Callable[[int, int], int]) -> int:
        return rule(kind.limits.memory_mib, self._drivers[kind.isolation].overhead_mib)

    def _idle_mib(self) -> int:
        return sum(shelf.stock * self._charge(kind, idle_mib) for kind, shelf in self.shelves.items())

    def _make_room(self, tenant: str, mib: int) -> None:
        """Make room for a sandbox with a call: what waits gives way, the tenant's own first."""
        while self._idle_mib() > self._memory.free_mib - mib:
            first = min(
                self._all_idle(),
                key=lambda held: (held[0].kind.tenant != tenant, held[1].offered),
                default=None,
            )
            if first is None:
                break  # what is being made is few, and is small
            self.end_idle(*first, Why.SURPLUS)

    def _all_idle(self) -> Iterable[tuple[Shelf, Holder]]:
        return ((shelf, holder) for shelf in self.shelves.values() for holder in shelf.idle)

    def _choose(self) -> tuple[Shelf, bool] | None:
        """Choose what is made next, and say whether it is for a call."""
        waiting = [shelf for shelf in self.shelves.values() if shelf.uncovered]
        tenants = {shelf.kind.tenant for shelf in waiting}
        wants = self.wants()
        short = [shelf for shelf in self._find_short(wants) if shelf.kind.tenant not in tenants]
        shelf = self._turns.choose([*waiting, *short])
        if shelf in short and not self._has_room_for_stock(shelf, wants):
            shelf = self._turns.choose(waiting)
        if shelf is None:
            return None
        self._turns.note(shelf)
        return shelf, shelf.uncovered > 0

    def _find_short(self, wants: Mapping[Kind, int]) -> list[Shelf]:
        """Find what is to be filled up now."""
        now = self.clock()
        loop = asyncio.get_running_loop()
        if now - self._last_taken < QUIET_SECONDS and (
            self._alarm is None or self._alarm.when() <= loop.time()
        ):
            self._alarm = loop.call_later(QUIET_SECONDS, self.schedule)
        return [
            shelf
            for kind, shelf in self.shelves.items()
            if now >= shelf.rests_until and shelf.stock < self._find_mark(shelf, wants.get(kind, 0), now)
        ]

    def _find_mark(self, shelf: Shelf, wanted: int, now: float) -> int:
        """Say up to which number stock is filled now: all of it in a quiet moment, else about half."""
        if now - self._last_taken >= QUIET_SECONDS:
            return wanted
        own_calls_come = now - shelf.demand.last < QUIET_SECONDS
        return wanted // 2 if own_calls_come else max(min(1, wanted), wanted // 2)

    def _has_room_for_stock(self, shelf: Shelf, wants: Mapping[Kind, int]) -> bool:
        """See that one more may wait; one that is over its kind's share gives way."""
        if self._memory.free_mib - self._idle_mib() < self._charge(shelf.kind, idle_mib):
            return False
        if sum(one.stock for one in self.shelves.values()) < self.terms.max_idle:
            return True
        over = [(one, held) for one, held in self._all_idle() if one.stock > wants.get(one.kind, 0)]
        if over:
            self.end_idle(*min(over, key=lambda held: held[1].offered), Why.SURPLUS)
        return bool(over)

    def _begin(self, shelf: Shelf, for_call: bool) -> None:
        self._number += 1
        holder = Holder(shelf.kind, self._number)
        shelf.making += 1
        self._making += 1
        self._holders.add(holder)
        idle = max(self.terms.idle_seconds, COLD_IDLE_SECONDS if for_call else 0.0)
        holder.task = asyncio.create_task(self._hold(shelf, holder, idle), name=f"sandbox {holder.number}")
        holder.task.add_done_callback(lambda _: self._forget(shelf, holder))

    async def _hold(self, shelf: Shelf, holder: Holder, idle_seconds: float) -> None:
        """Hold one sandbox from its making to its end."""
        began = self.clock()
        try:
            async with AsyncExitStack() as stack:
                sandbox = await self._make_one(holder, stack, idle_seconds)
                if not shelf.hand_over(holder) and self._may_wait(holder):
                    await self._warm_up(holder, sandbox)
                    self._offer(shelf, holder)
                seconds = self.clock() - began
                shelf.make.note(seconds)
                if holder.has_maker:  # else its author would say how long others have to wait
                    self._make.note(seconds)
                self._end_making(shelf, holder)
                self.watch.made(shelf.kind, seconds, warm=not holder.taken)
                await holder.over.wait()
                if holder.may_linger:
                    await self.lull.wait(sandbox)
        except Exception as error:
            self._note_failure(shelf, holder, error)

    def _end_making(self, shelf: Shelf, holder: Holder) -> None:
        if not holder.is_made:
            holder.is_made = True
            shelf.making -= 1
            self._free_maker(holder)

    def _free_maker(self, holder: Holder) -> None:
        if holder.has_maker:
            holder.has_maker = False
            self._making -= 1
            self.schedule()

    def _forget(self, shelf: Shelf, holder: Holder) -> None:
        """Note that none of a sandbox is left, also where its task was cancelled before its first step."""
        self._holders.discard(holder)
        self._end_making(shelf, holder)
        self.schedule()

    def _may_wait(self, holder: Holder) -> bool:
        """See whether stock of a kind may be there at all; if not, it ends."""
        has_room = len(self.idle) < self.terms.max_idle and self._idle_mib() <= self._memory.free_mib
        if has_room and self.is_wanted(holder.kind):
            return True
        holder.over.set()
        return False

    async def _make_one(self, holder: Holder, stack: AsyncExitStack, idle_seconds: float) -> Sandbox:
        kind = holder.kind
        driver = self._drivers[kind.isolation]
        uid = driver.allocate_uid()
        if kind.has_nest:
            holder.nest = stack.enter_context(self._make_nest(uid, kind.http))
        spec = SandboxSpec(
            image_id=kind.image_id,
            command=kind.command,
            limits=kind.limits,
            socket_dir=holder.nest.folder if holder.nest else None,
            uid=uid,
            idle_seconds=idle_seconds,
            has_proxy=kind.http is not None,
            take_door=holder.nest.keep_door if holder.nest else None,
        )
        made = await stack.enter_async_context(driver.create(spec, f"warm-{holder.number}"))
        holder.sandbox = made
        return made

    async def _warm_up(self, holder: Holder, sandbox: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(LONGEST_MAKING_SECONDS, self._free_maker, holder)
        try:
            await sandbox.warm_up(WARM_UP_SECONDS)
        except SandboxUnavailable as error:
            raise NotLoaded(str(error)) from error
        finally:
            timer.cancel()

    def _offer(self, shelf: Shelf, holder: Holder) -> None:
        """Give a loaded sandbox to a call that came meanwhile, or let it wait."""
        now = holder.offered = self.clock()
        if not holder.is_fit:
            raise NotLoaded("it lost its way out" if holder.is_lost else "it ended as soon as it was loaded")
        if shelf.hand_over(holder) or not self._may_wait(holder):
            return
        assert holder.sandbox is not None, "only what was made is offered"
        holder.looked = (now, holder.sandbox.cpu_seconds())
        shelf.idle.append(holder)

    def _note_failure(self, shelf: Shelf, holder: Holder, error: Exception) -> None:
        if holder.is_made:
            log.warning("sandbox %s %d: its end failed: %s", shelf.kind.tool, holder.number, error)
            return
        shelf.note_failure(self.clock())
        self.watch.failed(shelf.kind, str(error))
        # Who waits while stock could not be loaded gets one that is made for it, and its own clear error.
        if isinstance(error, NotLoaded) or not shelf.fail_first(error):
            log.warning("sandbox %s %d: not made: %s", shelf.kind.tool, holder.number, error)
