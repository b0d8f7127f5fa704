"""Keeps a session alive, and says when it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from credentials.errors import Cause
from credentials.logins import Token
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi

BEATS_A_PERIOD = 3
"""A session is renewed at least so often in each of its periods."""
_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Keeps one token alive from `keep` to `release`."""

    async def keep(self, token: Token, on_lost: Callable[[], None]) -> None:
        """Renew the token until it is released. `on_lost` is called once, in the loop, when it ended."""

    def look(self) -> None:
        """Find out soon whether the token still lives: something was denied."""

    async def release(self) -> None:
        """Stop keeping it. The token is not revoked by this."""

    async def abandon(self) -> None:
        """Stop keeping it, and see to its end if that can be done without this process."""


def beat_seconds(renew_seconds: float, token: Token) -> float:
    """Return the time between two renewals: what was asked for, or less where the period is short."""
    return min(renew_seconds, token.period_seconds / BEATS_A_PERIOD)


class Heartbeat:
    """Renews from this process. For sessions that may die with it by their period, such as the doctor's."""

    def __init__(self, api: VaultApi, renew_seconds: float) -> None:
        self._api = api
        self._renew_seconds = renew_seconds
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def keep(self, token: Token, on_lost: Callable[[], None]) -> None:
        """Renew until released; see `Keeper.keep`."""
        await self.release()
        self._task = asyncio.create_task(self._beat(token, on_lost), name="vault-heartbeat")

    def look(self) -> None:
        """Renew at once."""
        self._look_now.set()

    async def release(self) -> None:
        """Stop."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._task = None

    async def abandon(self) -> None:
        """Stop; the token ends with its period."""
        await self.release()

    async def _beat(self, token: Token, on_lost: Callable[[], None]) -> None:
        seconds = beat_seconds(self._renew_seconds, token)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                if not await self._renew(token):
                    on_lost()
                    return
            except VaultFault as fault:
                _log.warning("heartbeat to Vault failed: %s", fault)

    async def _renew(self, token: Token) -> bool:
        """Renew; False when Vault does not know the token any more."""
        try:
            await self._api.renew(token.value)
        except VaultFault as fault:
            if fault.cause is not Cause.DENIED or await self._api.is_session_alive(token.value):
                raise
            return False
        return True
