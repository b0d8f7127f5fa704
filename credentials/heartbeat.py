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

_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Keeps one token alive from `keep` to `release`."""

    async def keep(self, token: Token, on_lost: Callable[[], None]) -> None:
        """Renew the token until it is released. `on_lost` is called once, in the event loop, when it ended."""

    def look(self) -> None:
        """Find out soon whether the token still lives: something was denied."""

    async def release(self) -> None:
        """Stop keeping it. The token is not revoked by this."""


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

    async def _beat(self, token: Token, on_lost: Callable[[], None]) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._renew_seconds):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self._api.renew(token.value)
            except VaultFault as fault:
                if fault.cause is Cause.DENIED:
                    on_lost()
                    return
                _log.warning("heartbeat to Vault failed: %s", fault)
