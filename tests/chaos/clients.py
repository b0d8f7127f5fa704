"""The callers of a run, in a process of their own: many writes at once, each retried until it is answered.

Rules of a well-behaved agent: one key a write, the same key for each retry, and a new attempt after whatever
is no definite answer. IN_DOUBT is an answer that may change: it is put aside and asked again later. Some
callers are impatient and hang up early; some ask again for what they know, and must be told the same.

    python -m tests.chaos.clients FOLDER     a `Work` as JSON on stdin, then {"allow": n} and {"finish": true}
"""

from __future__ import annotations

import asyncio
import heapq
import importlib
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop

from broker.client import read_profile
from tests.chaos.stage import AGENT, DOCKER, PROCESSES
from tests.e2e.caller import read_error

CHANNELS = 4
PATIENCE_SECONDS = 20.0
RETRY_PATIENCE_SECONDS = 1.5
DOUBT_PATIENCE_SECONDS = 0.3
"""A caller that waits for a call in doubt makes no new write meanwhile."""
HANG_UP_SECONDS = 0.03
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
UNREACHABLE_SECONDS = (0.05, 0.15)
"""How long a caller waits that found no broker, whatever it wants to ask next."""
DOUBT_SECONDS = (0.5, 1.5)
TRANSIENT = frozenset(
    ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN")
)
METHODS = {
    kind: f"chaos.v1.Chaos/Write{kind.capitalize()}" for kind in ("dedupes", "probed", "blind", "late")
}

SUCCEEDED, NEEDS_HUMAN, IN_DOUBT, FAILED, OPEN = "SUCCEEDED", "NEEDS_HUMAN", "IN_DOUBT", "FAILED", "OPEN"


@dataclass(frozen=True)
class Work:
    """What the callers do.

    Attributes:
        docker_every: Every how many writes one goes through a real sandbox; 0 for none.
        end_seconds: How long answers may stay open after `finish`.
    """

    seed: int
    callers: int
    docker_every: int = 0
    end_seconds: float = 90.0


@dataclass
class Write:
    """One write, and what was answered so far.

    Attributes:
        mark: The agent's key, and what the target's counter counts by.
        numbers: Every effect number that an answer named; more than one is a broken promise.
    """

    mark: str
    kind: str
    tenant: str
    dawdle_millis: int
    state: str = OPEN
    reason: str = ""
    asked: int = 0
    failed_in_a_row: int = 0
    was_in_doubt: bool = False
    numbers: list[int] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)


class Agenda:
    """The writes that are to be asked, earliest first."""

    def __init__(self, work: Work) -> None:
        self._random = random.Random(work.seed)
        self._work = work
        self._later: list[tuple[float, int, Write]] = []
        self._ticket = itertools.count()
        self.writes: list[Write] = []
        self.allowed = 0
        self.open = 0

    def next(self) -> Write | None:
        """A new write, or one whose time has come; None when there is neither."""
        due = bool(self._later) and self._later[0][0] <= time.monotonic()
        new = len(self.writes) < self.allowed
        if due and not (new and self._random.random() < 0.5):
            return heapq.heappop(self._later)[2]
        if new:
            self.open += 1
            return self._make(len(self.writes))
        return None

    def again(self, write: Write, seconds: tuple[float, float]) -> None:
        """Ask a write again after a while."""
        due = time.monotonic() + self._random.uniform(*seconds)
        heapq.heappush(self._later, (due, next(self._ticket), write))

    def back_off(self, write: Write) -> None:
        """Ask a write again, later each time that it failed."""
        longest = min(FIRST_PAUSE_SECONDS * 2**write.failed_in_a_row, LONGEST_PAUSE_SECONDS)
        write.failed_in_a_row += 1
        self.again(write, (longest / 2, longest))

    def _make(self, number: int) -> Write:
        every = self._work.docker_every
        kinds = list(METHODS)
        # The kinds shift by one each time round, so that every nth write is not always of one kind.
        kind = kinds[(number + number // 60) % len(kinds)]
        tenant = DOCKER if every and number % every == every - 1 else PROCESSES
        dawdles = self._random.random() < 0.04
        write = Write(
            f"w{number}-{self._work.seed}", kind, tenant, self._random.randint(300, 1500) if dawdles else 0
        )
        self.writes.append(write)
        return write


class Callers:
    """Ask until every write is answered."""

    def __init__(self, folder: Path, work: Work) -> None:
        sys.path.insert(0, str(folder / "bundle"))
        self._pb2: Any = importlib.import_module("chaos.v1.chaos_pb2")
        self._folder, self._work = folder, work
        self._random = random.Random(work.seed + 1)
        self._channels: dict[str, Iterator[grpc.aio.Channel]] = {}
        self.agenda = Agenda(work)
        self.finished = asyncio.Event()
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        """Run all callers to the end."""
        tenants = [PROCESSES, *([DOCKER] if self._work.docker_every else [])]
        channels = {tenant: [self._connect(tenant) for _ in range(CHANNELS)] for tenant in tenants}
        self._channels = {tenant: itertools.cycle(opened) for tenant, opened in channels.items()}
        async with asyncio.TaskGroup() as group:
            for _ in range(self._work.callers):
                group.create_task(self._call_on())
        for opened in channels.values():
            for channel in opened:
                await channel.close()

    def _connect(self, tenant: str) -> grpc.aio.Channel:
        profile = read_profile(self._folder / "clients" / f"{tenant}-agent-{AGENT}")
        options = (
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1),
        )
        return grpc.aio.secure_channel(profile.address, profile.credentials(), options=options)

    async def _call_on(self) -> None:
        give_up = float("inf")
        while time.monotonic() < give_up:
            if self.finished.is_set():
                give_up = min(give_up, time.monotonic() + self._work.end_seconds)
                if self.agenda.open == 0 and len(self.agenda.writes) >= self.agenda.allowed:
                    return
            write = self.agenda.next()
            if write is None:
                await asyncio.sleep(0.01)
                continue
            await self._ask(write)

    async def _ask(self, write: Write) -> None:
        write.asked += 1
        request = self._pb2.WriteRequest(mark=write.mark, dawdle_millis=write.dawdle_millis)
        send = next(self._channels[write.tenant]).unary_unary(f"/{METHODS[write.kind]}")
        call = send(
            request.SerializeToString(),
            timeout=self._patience(write),
            metadata=(("toolcrib-idempotency-key", write.mark),),
        )
        try:
            raw = await call
        except grpc.aio.AioRpcError as error:
            self._note_error(write, error)
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(self._random.uniform(*UNREACHABLE_SECONDS))
            return
        self.answers["OK"] += 1
        trailers = dict(await call.trailing_metadata() or ())
        self._note_success(write, self._pb2.WriteResponse.FromString(raw).effect_number, trailers)

    def _patience(self, write: Write) -> float:
        if write.was_in_doubt:
            return DOUBT_PATIENCE_SECONDS
        if write.asked > 1:
            return RETRY_PATIENCE_SECONDS
        return HANG_UP_SECONDS if self._random.random() < 0.03 else PATIENCE_SECONDS

    def _note_success(self, write: Write, number: int, trailers: Mapping[str, Any]) -> None:
        write.numbers.append(number)
        write.call_ids.append(str(trailers.get("toolcrib-call-id", "")))
        if write.state != SUCCEEDED:
            write.state = SUCCEEDED
            self.agenda.open -= 1
            if self._random.random() < 0.05:
                self.agenda.again(write, DOUBT_SECONDS)

    def _note_error(self, write: Write, error: grpc.aio.AioRpcError) -> None:
        reply = read_error(error)
        reason = reply.reason.removeprefix("REASON_")
        self.answers[f"{reply.code} {reason}"] += 1
        if write.state == SUCCEEDED:
            if reply.code not in TRANSIENT or reason == "IN_DOUBT":
                write.reason = f"after SUCCEEDED: {reply.code} {reason}"
            self.agenda.back_off(write)
            return
        if reason == "IN_DOUBT":
            write.failed_in_a_row = 0
            write.was_in_doubt, write.state = True, IN_DOUBT
            if reply.details.get("needs_human") != "true":
                self.agenda.again(write, DOUBT_SECONDS)
                return
            write.state = NEEDS_HUMAN
        elif reply.code in TRANSIENT:
            self.agenda.back_off(write)
            return
        else:
            write.state, write.reason = FAILED, f"{reply.code} {reason}: {reply.message}"
        self.agenda.open -= 1


async def main() -> None:
    """Read the work, then follow what the supervisor says; print how far it is."""
    folder = Path(sys.argv[1])
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    callers = Callers(folder, Work(**json.loads(await stdin.readline())))
    running = asyncio.create_task(callers.run())
    listening = asyncio.create_task(_listen(stdin, callers))
    while not running.done():
        agenda = callers.agenda
        print(json.dumps({"made": len(agenda.writes), "open": agenda.open}), flush=True)
        await asyncio.wait((running,), timeout=0.1)
    listening.cancel()
    running.result()
    found = {"answers": callers.answers, "writes": [asdict(write) for write in callers.agenda.writes]}
    (folder / "writes.json").write_text(json.dumps(found))


async def _listen(stdin: asyncio.StreamReader, callers: Callers) -> None:
    while line := await stdin.readline():
        said = json.loads(line)
        callers.agenda.allowed = max(callers.agenda.allowed, said.get("allow", 0))
        if said.get("finish"):
            callers.finished.set()
    callers.finished.set()


if __name__ == "__main__":
    uvloop.run(main())
