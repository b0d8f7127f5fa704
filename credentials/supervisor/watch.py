"""The supervisor's work: renew the token, watch the broker, and end the token with it.

The watch runs in the main thread and never asks Vault while the broker lives. A thread for each token renews
it. When the broker is gone the main thread revokes the token itself, over a connection of its own, so that a
renewal that stalls does not delay it.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import threading
import time
from collections.abc import Callable

from credentials.secret import Secret
from credentials.supervisor.messages import (
    MAX_PACKET_BYTES,
    Failing,
    Garbled,
    Keep,
    Kept,
    Look,
    Lost,
    Message,
    Release,
    Renewed,
    decode,
    encode,
)
from credentials.supervisor.token_client import Said, TokenClient

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0


class Ending(enum.Enum):
    """How a watch came to its end."""

    RELEASED = "released"
    NOTHING_HELD = "the broker is gone; it had no session"
    REVOKED = "the broker is gone; its session was revoked"
    UNKNOWN = "the broker is gone; its session had ended"
    GAVE_UP = "the broker is gone; its session could not be revoked and ends with its period"


class Watch:
    """Watches one broker.

    Args:
        control: The socket to the broker.
        broker: A pidfd of the broker's process: readable once it has ended, whoever has its number then.
    """

    def __init__(self, control: socket.socket, broker: int, client: TokenClient) -> None:
        control.setblocking(False)
        self._control, self._broker, self._client = control, broker, client
        self._beat: _Beat | None = None

    def run(self) -> Ending:
        """Watch until the broker releases the token, or is gone and the token with it."""
        poll = select.poll()
        for descriptor in (self._control.fileno(), self._broker):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            # A broker that released the token and ended has said so before: its words are read first.
            ending = self._hear()
            if ending is None and self._broker in ready:
                ending = self._end_token()
            if ending is not None:
                return ending

    def _hear(self) -> Ending | None:
        """Do what the broker says, until it has said all."""
        while True:
            try:
                packet = self._control.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                packet = b""
            if not packet:
                return self._end_token()
            with contextlib.suppress(Garbled):
                if self._obey(decode(packet)):
                    return Ending.RELEASED

    def _obey(self, message: Message) -> bool:
        """Do what one message says; True when that was the last one."""
        if isinstance(message, Keep):
            if self._beat is not None:
                self._beat.stop()
            self._beat = _Beat(message, self._client, self._say)
            self._beat.start()
            self._say(Kept())
        elif isinstance(message, Look) and self._beat is not None:
            self._beat.hurry()
        return isinstance(message, Release)

    def _end_token(self) -> Ending:
        beat, self._beat = self._beat, None
        if beat is None:
            return Ending.NOTHING_HELD
        beat.stop()
        if beat.lost:
            return Ending.UNKNOWN
        # From its last renewal, which may be under way, the token lives for one period.
        return end_token(self._client, beat.token, time.monotonic() + beat.period_seconds)

    def _say(self, message: Message) -> None:
        """Tell the broker; one that was stopped does not listen, and must not hold this process up."""
        with contextlib.suppress(OSError):
            self._control.send(encode(message))


def end_token(client: TokenClient, token: Secret, until: float) -> Ending:
    """Revoke a token, again and again until it is gone or `until` (monotonic) has passed."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        said = client.revoke(token)
        if said is Said.DONE:
            return Ending.REVOKED
        if said is Said.UNKNOWN:
            return Ending.UNKNOWN
        if time.monotonic() > until:
            return Ending.GAVE_UP
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class _Beat(threading.Thread):
    """Renews one token until it is stopped, or the token is gone."""

    def __init__(self, keep: Keep, client: TokenClient, say: Callable[[Message], None]) -> None:
        super().__init__(name="beat", daemon=True)
        self.token = Secret(keep.token)
        self.period_seconds = keep.period_seconds
        self.lost = False
        self._number = keep.number
        self._renew_seconds = keep.renew_seconds
        self._client, self._say = client, say
        self._now = threading.Event()
        self._stopped = False

    def hurry(self) -> None:
        self._now.set()

    def stop(self) -> None:
        self._stopped = True
        self._now.set()

    def run(self) -> None:
        while True:
            self._now.wait(self._renew_seconds)
            self._now.clear()
            if self._stopped:
                return
            said = self._client.renew(self.token)
            if self._stopped:
                return
            if said is Said.UNKNOWN:
                self.lost = True
                self._say(Lost(self._number))
                return
            self._say(Renewed() if said is Said.DONE else Failing(self._client.trouble))
