"""What a handler knows about the call that it serves.

Named tuples, because importing dataclasses costs a call 10 ms.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from toolcrib.handler.frames import Frames
from toolcrib.handler.v1 import handler_pb2


class Login(NamedTuple):
    """A user name and a password that live exactly as long as this call."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Hide the password: what is printed ends up in a log."""
        return f"Login(username={self.username!r}, password=…)"


class Target(NamedTuple):
    """A way out of the sandbox.

    Attributes:
        socket_dir: Folder of the unix socket; a PostgreSQL client takes it as its host.
        socket_path: The unix socket itself.
        settings: What the operator declared, for example "database".
    """

    socket_dir: str
    socket_path: str
    settings: Mapping[str, str]


class Context:
    """One call: who asks, what was minted for it, and how much time is left.

    Attributes:
        idempotency_key: Give it to the target where that dedupes; empty for a read without a key.
        attempt: Number of the attempt under this key, from 1.
    """

    def __init__(self, start: handler_pb2.Start, frames: Frames) -> None:
        call = start.context
        self.call_id, self.tenant, self.environment = call.call_id, call.tenant, call.environment
        self.agent, self.subject = call.agent, call.subject
        self.idempotency_key, self.attempt = call.idempotency_key, call.attempt
        self.traceparent = call.traceparent
        self.credentials: Mapping[str, Login] = {
            name: Login(value.username_password.username, value.username_password.password)
            for name, value in start.credentials.items()
        }
        self.targets: Mapping[str, Target] = {
            name: Target(value.socket_dir, value.socket_path, dict(value.settings))
            for name, value in start.targets.items()
        }
        self._deadline = time.monotonic() + call.remaining_millis / 1000
        self._frames = frames
        self._cancelled = False

    @property
    def remaining_seconds(self) -> float:
        """Time until the sandbox ends, whatever it does then; 0 when it is over."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for the answer any more; a handler may stop early."""
        while not self._cancelled and self._frames.waiting():
            try:
                self._cancelled = self._frames.read().HasField("cancel")
            except EOFError:
                self._cancelled = True
        return self._cancelled

    def progress(self, message: str, percent: int = 0) -> None:
        """Tell how far the work is.

        Args:
            message: For people; cut at 200 characters.
            percent: 0 to 100; 0 where unknown.
        """
        progress = handler_pb2.Progress(message=message[:200], percent=max(0, min(100, percent)))
        self._frames.write(handler_pb2.HandlerFrame(progress=progress))
