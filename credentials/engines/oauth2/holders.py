"""Who has which token: some servers give a client the token that it has again, and one end would end all.

RFC 6749 lets them. Then calls share a token, and it is revoked with the last of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from credentials.secret import Secret


class Holders:
    """Counts the holders of tokens, by server and digest; of one process, in which each token was had."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, bytes]] = Counter()

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


def _name(server: str, token: Secret) -> tuple[str, bytes]:
    return server, hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
