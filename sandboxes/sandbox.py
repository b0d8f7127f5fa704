"""What everything that runs sandboxes promises, whichever runtime is behind it.

A `Driver` makes sandboxes for one installation and epoch; a `Sandbox` lives for one call. Each clause below
has a test in tests/contracts/test_driver_*.py, and a driver that violates it, which that test must find.

Of a driver:
    D1  `create` gives a sandbox that is running, or raises SandboxUnavailable and leaves nothing.
    D2  On leaving `create`, by whatever path, none of its processes is left.
    D3  No two sandboxes have the same user id, container id, or processes of each other in sight.
    D4  `reap` ends what earlier epochs of this installation left, and nothing of another installation.
    D5  `leftovers` lists what is there of this installation, whatever its epoch.
    D6  `end_container` ends by id what any epoch of this installation made, true only when nothing is left;
        what is another installation's it refuses.
    D7  `close` ends what is left.

Of a sandbox:
    S1  Its handler is loaded before the call and gets nothing of it before `run`.
    S2  `run` gives the handler exactly the Start that it was given, and returns what the handler said.
    S3  `run` serves one call; a second one is a fault of the caller.
    S4  `run` returns by the deadline, whatever the handler does, and raises for nothing that it does.
    S5  What the handler says is capped while it is read: over the cap OUTPUT_TOO_LARGE, a log is cut and
        marked so, with control characters escaped.
    S6  `cancel` reaches the handler as a Cancel frame, once.
    S7  An unused sandbox ends by itself at its idle age, also when nobody outside is alive.
    S8  A used one ends by itself at its deadline, also when nobody outside is alive.
    S9  `end` ends it with everything in it, whatever state it is in; true when that is confirmed, and then
        `gone` says since when.
    S10 Memory, processes, /tmp and open files are limited as the spec says.
    S11 It has no network but its own loopback, and no way out but its socket folder.
    S12 `warm_up` returns when the handler says that it is loaded; one that says anything else first, or
        ends, is refused.
    S13 `cpu_seconds` tells the processor time that everything in it has used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from sandboxes.outcome import AnswerSign, RawOutcome, SandboxSpec
from toolcrib.handler.v1 import handler_pb2


class Sandbox(Protocol):
    """A place that lives for one call."""

    @property
    def container_id(self) -> str:
        """What `Driver.end_container` knows it by, also after a crash."""

    @property
    def image_id(self) -> str:
        """The image it was made from."""

    @property
    def uid(self) -> int:
        """The user id of everything in it."""

    @property
    def made(self) -> datetime:
        """When it was made."""

    @property
    def gone(self) -> datetime | None:
        """Since when none of its processes is left, confirmed; None before."""

    @property
    def is_alive(self) -> bool:
        """Whether its PID 1 still runs, as far as that is known without asking anybody."""

    def cpu_seconds(self) -> float | None:
        """Tell the processor time that everything in it has used; None where that cannot be read."""

    async def warm_up(self, patience_seconds: float) -> None:
        """Wait until the handler says that it is loaded. Only before `run`; a call need not wait for it.

        Raises:
            SandboxUnavailable: It ended, took too long, or the handler said something else.
        """

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        """Hold the one conversation of this sandbox; `answer` gives signatures on the handler's request.

        Raises for nothing that the handler does.
        """

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early. Waits for nothing; only the first one is sent."""

    async def end(self) -> bool:
        """End it with everything in it. Safe to call again.

        Returns:
            True when the end is confirmed.
        """


class Driver(Protocol):
    """Makes sandboxes for one installation and epoch."""

    @property
    def name(self) -> str:
        """What settings and people call it: "docker-runc", "docker-runsc", "bubblewrap"."""

    @property
    def overhead_mib(self) -> int:
        """Memory that a sandbox takes beside its limit: shim, sentry, init."""

    async def start(self) -> object:
        """Make sure that what runs the sandboxes is there and fit.

        Raises:
            SandboxError: It is not; the message says what to do.
        """

    async def close(self) -> None:
        """End every sandbox that is left."""

    def allocate_uid(self) -> int:
        """Give a user id that no other sandbox has."""

    def create(self, spec: SandboxSpec, call_id: str) -> AbstractAsyncContextManager[Sandbox]:
        """Make a sandbox and take it away again, on every path.

        Args:
            spec: What is wanted.
            call_id: For names and logs only; a warm sandbox has one of its own.
        """

    def knows(self, container_id: str) -> bool:
        """Tell whether an id has the shape of those that this driver gives."""

    async def reap(self) -> Sequence[str]:
        """End what earlier epochs of this installation left; returns what is gone."""

    async def leftovers(self) -> Sequence[str]:
        """List what is there of this installation, whatever its epoch."""

    async def end_container(self, container_id: str) -> bool:
        """End what a record names, whichever epoch made it; True when nothing of it is left."""
