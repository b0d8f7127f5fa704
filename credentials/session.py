"""The broker's token at Vault: logged in, vetted, kept alive by a `Keeper`, opened again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from credentials.errors import Cause, CredentialsUnavailable
from credentials.heartbeat import Keeper
from credentials.logins import Login, vet
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
_log = logging.getLogger(__name__)


class Session:
    """One session after the other, for as long as it is open.

    Args:
        on_lost: Told when a session ended by itself: its leases are gone.
        on_opened: Told when there is one, the first one and each that follows a lost one.

    Attributes:
        lost: True while there is none in place of one that ended.
    """

    def __init__(
        self,
        api: VaultApi,
        login: Login,
        keeper: Keeper,
        on_lost: Callable[[], None],
        on_opened: Callable[[], None],
    ) -> None:
        self._api, self._login, self._keeper = api, login, keeper
        self._on_lost, self._on_opened = on_lost, on_opened
        self._token = Secret("")
        self._opening: asyncio.Task[None] | None = None
        self._closing = False
        self.lost = False

    @property
    def token(self) -> Secret:
        """The present one, which Vault may have ended; empty where there never was one."""
        return self._token

    @property
    def is_open(self) -> bool:
        """True while there is a session, as far as is known."""
        return bool(self._token) and not self.lost

    async def open(self) -> None:
        """Log in, and have the session kept alive.

        Raises:
            VaultFault: Vault does not answer, refuses the login, or gives what is no session.
        """
        token, was_lost = await self._login.log_in(self._api), self.lost
        try:
            for doubt in await vet(self._api, token):
                _log.warning("the session at Vault: %s", doubt)
            # Before it is kept: its loss may be told as soon as it is.
            self._token, self.lost = token.value, False
            await self._keeper.keep(token, self._lose)
        except BaseException:
            self._token, self.lost = Secret(""), was_lost
            await self._revoke(token.value)
            raise
        if self.is_open:
            self._on_opened()

    async def close(self) -> None:
        """End it. Where Vault does not answer, the keeper is left to see to it, or the period ends it."""
        self._closing = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if not self.is_open or await self._revoke(self._token):
            await self._keeper.release()
        else:
            await self._keeper.abandon()
        self._token = Secret("")

    def living(self, subject: str) -> Secret:
        """Return the token, for a request that makes no sense without a session.

        Raises:
            CredentialsUnavailable: SESSION_LOST.
        """
        if not self.is_open:
            raise gone(subject)
        return self._token

    def look(self) -> None:
        """Find out soon whether it lives: something was denied."""
        self._keeper.look()

    async def _revoke(self, token: Secret) -> bool:
        try:
            await self._api.revoke_session(token)
        except VaultFault as fault:
            if fault.cause is Cause.DENIED:  # it ended before
                return True
            _log.error("the session could not be ended: %s", fault)
            return False
        return True

    def _lose(self) -> None:
        """Open a new session in place of one that ended; it took its leases with it."""
        if self._closing or self.lost:
            return
        self.lost = True
        _log.error("the session at Vault ended, and its leases with it; logging in again")
        self._opening = asyncio.ensure_future(self._open_again())
        self._on_lost()

    async def _open_again(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closing:
            try:
                await self.open()
                return
            except VaultFault as fault:
                _log.warning("cannot log in at Vault: %s", fault)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def gone(subject: str) -> CredentialsUnavailable:
    """Say that there is no session now."""
    text = f"{subject}: the broker's session at Vault ended; it is being opened again"
    return CredentialsUnavailable(text, Cause.SESSION_LOST)
