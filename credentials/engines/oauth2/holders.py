"""Who has which token: some servers give a client the token that it has again, and one end would end all.

RFC 6749 lets them. Then calls share a token, and it is revoked with the last of them. A token that is being
revoked, or just was, may come once more, because the server gave it before it knew: it is not taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from credentials.secret import Secret

JUST_SECONDS = 10.0
"""An answer that was under way when the revocation was answered has come by then."""
_Name = tuple[str, bytes]


class Holders:
    """Counts the holders of tokens, by server and digest; of one process, in which each token was had."""

    def __init__(self) -> None:
        self._counts: Counter[_Name] = Counter()
        self._ending: dict[_Name, asyncio.Event] = {}
        self._ended: dict[_Name, float] = {}

    def take(self, server: str, token: Secret) -> int:
        """Note one holder more; returns how many there are now."""
        name = _name(server, token)
        self._counts[name] += 1
        return self._counts[name]

    def give_back(self, server: str, token: Secret) -> int:
        """Note one holder less; returns how many are left."""
        name = _name(server, token)
        left = self._counts[name] - 1
        if left > 0:
            self._counts[name] = left
        else:
            del self._counts[name]
        return max(left, 0)

    @contextmanager
    def ending(self, server: str, token: Secret) -> Iterator[None]:
        """Revoke a token that nobody has any more."""
        name = _name(server, token)
        over = self._ending[name] = asyncio.Event()
        try:
            yield
        finally:
            self._ending.pop(name, None)
            over.set()
            now = time.monotonic()
            recent = {one: at for one, at in self._ended.items() if now - at < JUST_SECONDS}
            self._ended = recent | {name: now}

    async def wait_until_ended(self, server: str, token: Secret) -> bool:
        """Tell whether a token is no good to take; while it is being revoked, wait for that."""
        name = _name(server, token)
        if (over := self._ending.get(name)) is not None:
            await over.wait()
        return name in self._ended and time.monotonic() - self._ended[name] < JUST_SECONDS


def _name(server: str, token: Secret) -> _Name:
    return server, hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
