"""Keeps the broker's session alive through the supervisor, and sees that there is one.

Rules:
1. A session is not opened without a supervisor. Where one dies later, this process renews the session itself,
   at once, until another one has the token; that it died is said.
2. One that lives and says nothing for three beats is killed and replaced: a session that nobody renews ends
   under every running call.
3. `on_lost` is called once for each token, and for none but the present one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine

from credentials.errors import Cause
from credentials.heartbeat import Heartbeat, beat_seconds
from credentials.logins import Token
from credentials.supervisor.messages import Begin, Failing, Keep, Look, Lost, Message, Renewed
from credentials.supervisor.process import SupervisorGone, SupervisorProcess
from credentials.transport import Peer, VaultFault
from credentials.vault_api import VaultApi

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
_SILENT_BEATS = 3
_log = logging.getLogger(__name__)


def _ignore(_: str) -> None:
    pass


class Supervisor:
    """A `Keeper` that is a process of its own; see credentials/supervisor.

    Args:
        api: For the heartbeats of this process while there is no supervisor.
        renew_seconds: Between two renewals; a third of the period at most.
        on_died: Told why a supervisor had to be replaced.

    Attributes:
        restarts: How often it had to be replaced.
    """

    def __init__(self, api: VaultApi, renew_seconds: float, on_died: Callable[[str], None] = _ignore) -> None:
        self._begin = _make_begin(api.peer)
        self._renew_seconds, self._on_died = renew_seconds, on_died
        self._own = Heartbeat(api, renew_seconds)
        self._process: SupervisorProcess | None = None
        self._token: Token | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._turn = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._failing = False
        self._number = 0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The supervisor's process id; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def uid(self) -> int | None:
        """Under which it runs; None while there is none."""
        return self._process.uid if self._process else None

    async def keep(self, token: Token, on_lost: Callable[[], None]) -> None:
        """Have the token renewed until it is released, and revoked when this process dies.

        Raises:
            VaultFault: There was no supervisor yet, and none can be had.
        """
        first = self._token is None
        self._token, self._on_lost, self._failing = token, on_lost, False
        self._number += 1
        async with self._turn:
            try:
                await self._hand_over()
            except SupervisorGone as error:
                if first:
                    self._token = None
                    await self._end_process()
                    text = f"the supervisor of the session does not start: {error}"
                    raise VaultFault(text, Cause.INVALID) from error
                await self._renew_here(str(error))

    def look(self) -> None:
        """Renew at once."""
        self._own.look()
        if self._process is not None:
            self._process.tell(Look())

    async def release(self) -> None:
        """Let it end; the token stays as it is."""
        process = await self._stop()
        if process is not None:
            await process.release()

    async def abandon(self) -> None:
        """Leave it the token to revoke."""
        process = await self._stop()
        if process is not None:
            await process.abandon()

    async def _stop(self) -> SupervisorProcess | None:
        self._token = None
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._own.release()
        process, self._process = self._process, None
        return process

    # --- the process ---
    async def _hand_over(self) -> None:
        """Give the present token to a supervisor.

        Raises:
            SupervisorGone: None can be had.
        """
        token = self._token
        if token is None:
            return
        if self._process is not None and (self._process.is_gone or self._begin.certificate):
            # A new login may be by a new certificate, and its files cannot be read by the one that runs.
            await self._process.kill()
            self._process = None
        if self._process is None:
            self._process = await SupervisorProcess.start(self._begin, self._hear, self._bury)
            if self._process.uid == os.geteuid() == 0:
                _log.warning("the supervisor of the session runs as root: it may become no other user here")
            self._spawn(self._listen_for_silence(self._process))
        await self._process.keep(
            Keep(self._number, token.value.reveal(), token.period_seconds, self._beat_seconds(token))
        )
        await self._own.release()

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.kill()

    async def _renew_here(self, reason: str) -> None:
        """Renew in this process, from now on, and look for another supervisor."""
        await self._end_process()
        if self._token is None:
            return
        self.restarts += 1
        _log.error("the supervisor of the session is replaced: %s", reason)
        await self._own.keep(self._token, self._lose)
        self._own.look()
        self._spawn(self._replace())
        self._on_died(reason)

    async def _replace(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while self._token is not None:
            try:
                async with self._turn:
                    await self._hand_over()
                return
            except SupervisorGone as error:
                _log.warning("no supervisor of the session: %s", error)
                self._process = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _bury(self, process: SupervisorProcess) -> None:
        if process is self._process:
            self._spawn(self._take_over(process, "it died"))

    async def _take_over(self, process: SupervisorProcess, reason: str) -> None:
        async with self._turn:
            if process is self._process:
                await self._renew_here(reason)

    async def _listen_for_silence(self, process: SupervisorProcess) -> None:
        """Find out that a supervisor is there and does nothing."""
        loop = asyncio.get_running_loop()
        while process is self._process and (token := self._token) is not None:
            quiet = _SILENT_BEATS * (self._beat_seconds(token) + self._begin.timeout_seconds)
            await asyncio.sleep(quiet / _SILENT_BEATS)
            if loop.time() - process.heard <= quiet:
                continue
            # Perhaps it was this process that was stopped, and has not read yet what it was told.
            process.tell(Look())
            await asyncio.sleep(2 * self._begin.timeout_seconds)
            if loop.time() - process.heard > quiet:
                await self._take_over(process, f"it said nothing for {quiet:g} s")

    def _beat_seconds(self, token: Token) -> float:
        return beat_seconds(self._renew_seconds, token)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- what it says ---
    def _hear(self, message: Message) -> None:
        if isinstance(message, Lost) and message.number == self._number:
            self._lose()
        elif isinstance(message, Failing) and not self._failing:
            self._failing = True
            _log.warning("the session at Vault is not renewed: %s; it is tried again", message.cause)
        elif isinstance(message, Renewed) and self._failing:
            self._failing = False
            _log.info("the session at Vault is renewed again")

    def _lose(self) -> None:
        on_lost, self._on_lost = self._on_lost, lambda: None
        on_lost()


def _make_begin(peer: Peer) -> Begin:
    return Begin(
        peer.address,
        str(peer.ca_file or ""),
        str(peer.certificate or ""),
        str(peer.private_key or ""),
        peer.timeout_seconds,
    )
