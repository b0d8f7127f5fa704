"""Page tokens: where the next page begins, signed, and bound to the list that gave it.

A token of another tenant, of another list or with other filters is refused, as is one that was changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from broker.model import CallRecord
from broker.store.moments import to_micros
from broker.store.records import Page, VersionRow

T = TypeVar("T")

MAC_BYTES = 16
MAX_PAGE_SIZE = 500

Position = tuple[int | str, ...]


class PageTokens:
    """Makes and reads the tokens of one installation."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, binding: Sequence[str], position: Position) -> str:
        """Name the position after which the next page of a list begins.

        Args:
            binding: What the list is: its name, the tenant, the filters.
            position: Sort values of the last item given.
        """
        body = json.dumps(position, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(binding, body) + body).decode().rstrip("=")

    def read(self, binding: Sequence[str], token: str) -> Position:
        """Read a token that `make` gave for the same list.

        Raises:
            ValueError: It is none.
        """
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("the page token is not one that this list gave") from error
        mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._sign(binding, body)):
            raise ValueError("the page token is not one that this list gave")
        return tuple(json.loads(body))

    def cut(
        self, binding: Sequence[str], items: Sequence[T], size: int, position: Callable[[T], Position]
    ) -> Page[T]:
        """Make a page of the first `size` items; more than that many means that there is a next one."""
        if len(items) <= size:
            return Page(items)
        return Page(items[:size], self.make(binding, position(items[size - 1])))

    def _sign(self, binding: Sequence[str], body: bytes) -> bytes:
        said = json.dumps(list(binding)).encode()
        return hmac.digest(self._key, len(said).to_bytes(4, "big") + said + body, hashlib.sha256)[:MAC_BYTES]


def clamp_page_size(page_size: int) -> int:
    """Keep a page between 1 and 500 items."""
    return max(1, min(page_size, MAX_PAGE_SIZE))


def call_position(call: CallRecord) -> Position:
    """Say where a call stands in a list of calls."""
    return to_micros(call.started), call.call_id


def version_position(row: VersionRow) -> Position:
    """Say where a version stands in a list of versions."""
    return to_micros(row.registered), row.bundle, row.version
