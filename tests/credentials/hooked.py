"""A session with Vault whose answers pass the test before anybody gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from credentials.dev_vault import DevVault
from credentials.secret import Secret
from credentials.transport import AsyncTransport, Peer
from credentials.vault import SessionTuning, VaultSession


class HookedTransport(AsyncTransport):
    """Tells a test of each answer before anybody gets it; the test may throw it away."""

    def __init__(self, peer: Peer, after: Callable[[str, str], None]) -> None:
        super().__init__(peer)
        self._after = after

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        try:
            return await super().ask(method, path, token, body, repeatable=repeatable)
        finally:
            self._after(method, path)


async def open_hooked(vault: DevVault, after: Callable[[str, str], None]) -> VaultSession:
    """Open a session whose answers pass the test."""
    tuning = SessionTuning(transport=lambda peer: HookedTransport(peer, after), timeout_seconds=2)
    session = VaultSession(vault.address, vault.login, tuning)
    await session.open()
    return session
