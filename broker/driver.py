"""What the path needs of whatever runs sandboxes. `sandboxes.docker_driver` is the one of production."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from sandboxes.outcome import AnswerSign, RawOutcome, SandboxSpec
from toolcrib.handler.v1 import handler_pb2


class Sandbox(Protocol):
    """A place that lives for one call. Up to `run` nothing of the handler has been executed."""

    @property
    def container_id(self) -> str:
        """What `Driver.end_container` knows it by, also after a crash."""

    @property
    def image_id(self) -> str:
        """The image it was made from."""

    @property
    def made(self) -> datetime:
        """When it was made."""

    @property
    def gone(self) -> datetime | None:
        """When its end was confirmed; None before."""

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        """Hold the one conversation of this sandbox; `answer` gives signatures on the handler's request.

        Raises for nothing that the handler does.
        """

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early. Waits for nothing; only the first one is sent."""


class Driver(Protocol):
    """Makes sandboxes for one installation and epoch."""

    async def start(self) -> object:
        """Make sure that what runs the sandboxes is there and fit."""

    async def close(self) -> None:
        """End every sandbox that is left."""

    def allocate_uid(self) -> int:
        """Give a user id that no other sandbox has."""

    def create(self, spec: SandboxSpec, call_id: str) -> AbstractAsyncContextManager[Sandbox]:
        """Make a sandbox and take it away again, on every path."""

    async def reap(self) -> Sequence[str]:
        """End what other epochs of this installation left; returns what is gone."""

    async def leftovers(self) -> Sequence[str]:
        """List what is there of this installation, whatever its epoch."""

    async def end_container(self, container_id: str) -> bool:
        """End what a record names, whichever epoch made it; True when nothing of it is left."""
