"""The keys of one issuer, kept at hand: a call only looks into memory.

Rules:
1. They are read again regularly, and when a token names a key that is not among them. The latter at most
   once in SEEK_SECONDS, whatever comes in: garbage cannot make us hammer the issuer, nor stall.
2. While they cannot be read the last ones are used, for `max_stale_seconds`; then no token is taken.
3. What was read replaces what was there: a key that is gone checks nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from broker.errors import Refused
from broker.identity_settings import Issuer
from broker.tokens.documents import KeysUnavailable, fetch_keys, read_keys
from broker.tokens.form import refuse
from broker.tokens.keys import Key, KeySet
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)

SEEK_SECONDS = 5.0
RETRY_SECONDS = 15.0
_MAX_ABSENT = 256

Monotonic = Callable[[], float]


class KeySource(ABC):
    """Where the keys of one issuer come from."""

    def __init__(self, issuer: Issuer, monotonic: Monotonic = time.monotonic) -> None:
        self.issuer = issuer
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._confirmed = -math.inf

    @abstractmethod
    async def start(self) -> None:
        """Read the keys for the first time, and see to it that they stay fresh."""

    @abstractmethod
    async def close(self) -> None:
        """Stop reading them."""

    @abstractmethod
    async def seek(self, key_id: str | None) -> None:
        """Read the keys again if that may bring a key that is not among them; bounded in time."""

    @abstractmethod
    def find(self, key_id: str | None, algorithm: str) -> Key:
        """Find the key of a token.

        Raises:
            Refused: TOKEN_INVALID, no such key; TOKEN_KEYS_UNAVAILABLE, that cannot be told now.
        """

    def _current(self) -> KeySet:
        """Give the keys, as long as they are fresh enough.

        Raises:
            Refused: TOKEN_KEYS_UNAVAILABLE.
        """
        if self._keys is None or self._monotonic() - self._confirmed > self.issuer.max_stale_seconds:
            raise unavailable(self.issuer)
        return self._keys

    def _accept(self, keys: KeySet) -> None:
        if self._keys is None or self._keys.names != keys.names:
            log.info("token keys", extra={"issuer": self.issuer.issuer, "keys": keys.names})
        self._keys, self._confirmed = keys, self._monotonic()

    def _complain(self, error: KeysUnavailable) -> None:
        log.warning("token keys not read", extra={"issuer": self.issuer.issuer, "cause": str(error)})


class UrlKeys(KeySource):
    """Keys that an issuer serves."""

    def __init__(self, issuer: Issuer, monotonic: Monotonic = time.monotonic) -> None:
        super().__init__(issuer, monotonic)
        self._sought = -math.inf
        self._absent: set[str] = set()
        self._flight: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys; an issuer that is down does not keep the broker from starting."""
        await self._fly()
        self._refreshing = asyncio.create_task(self._refresh_for_ever(), name="token keys")

    async def close(self) -> None:
        """Stop reading them."""
        for task in (self._refreshing, self._flight):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def seek(self, key_id: str | None) -> None:
        """Read the keys again if one is missing and nobody asked for that a moment ago."""
        if self._has(key_id):
            return
        if self._flight is None and self._monotonic() - self._sought < SEEK_SECONDS:
            return
        self._sought = self._monotonic()
        if await self._fly() and key_id is not None and not self._has(key_id):
            if len(self._absent) >= _MAX_ABSENT:
                self._absent.clear()
            self._absent.add(key_id)

    def find(self, key_id: str | None, algorithm: str) -> Key:
        """Find the key of a token; see `KeySource.find`."""
        found = self._current().find(key_id, algorithm)
        if found is not None:
            return found
        if key_id in self._absent:
            raise refuse("the token names a key (kid) that its issuer does not have")
        raise unavailable(self.issuer)  # it may be new, and nobody looked since

    def _has(self, key_id: str | None) -> bool:
        return self._keys is not None and (key_id is None or key_id in self._keys.names)

    async def _fly(self) -> bool:
        """Read the keys, one reading at a time for all who wait; one who hangs up does not end it."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._read(), name="token keys read")
            self._flight.add_done_callback(self._land)
        return await asyncio.shield(self._flight)

    def _land(self, _flight: asyncio.Task[bool]) -> None:
        self._flight = None

    async def _read(self) -> bool:
        try:
            keys = await fetch_keys(self.issuer)
        except KeysUnavailable as error:
            self._complain(error)
            return False
        self._accept(keys)
        self._absent.clear()
        return True

    async def _refresh_for_ever(self) -> None:
        seconds = self.issuer.refresh_seconds
        while True:
            late = self._monotonic() - self._confirmed > seconds
            await asyncio.sleep(min(RETRY_SECONDS, seconds) if late else seconds)
            try:
                await self._fly()
            except Exception:
                log.exception("token keys not read", extra={"issuer": self.issuer.issuer})


class FileKeys(KeySource):
    """Keys in a file that the operator keeps; read again when it changes."""

    def __init__(self, issuer: Issuer, path: Path, monotonic: Monotonic = time.monotonic) -> None:
        super().__init__(issuer, monotonic)
        self._path = path
        self._seen: tuple[int, ...] = ()

    async def start(self) -> None:
        """Read the keys.

        Raises:
            KeysUnavailable: The file is missing, or wrong: the operator should hear of it at once.
        """
        self._read()

    async def close(self) -> None:
        """Nothing is open."""

    async def seek(self, key_id: str | None) -> None:
        """Nothing to do: `find` looks at the file."""

    def find(self, key_id: str | None, algorithm: str) -> Key:
        """Find the key of a token; see `KeySource.find`."""
        try:
            self._read()
        except KeysUnavailable as error:
            self._complain(error)
        found = self._current().find(key_id, algorithm)
        if found is None:
            raise refuse("the token names a key (kid) that its issuer does not have")
        return found

    def _read(self) -> None:
        """Read the file if it is another than the last time."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise KeysUnavailable(f"{self._path}: cannot be read ({error.strerror})") from error
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._accept(read_keys(self.issuer, self._path))
            self._seen = seen
        self._confirmed = self._monotonic()


def make_key_source(issuer: Issuer, monotonic: Monotonic = time.monotonic) -> KeySource:
    """Make what keeps the keys of an issuer."""
    if issuer.jwks_file is not None:
        return FileKeys(issuer, issuer.jwks_file, monotonic)
    return UrlKeys(issuer, monotonic)


def unavailable(issuer: Issuer) -> Refused:
    """Say that a token cannot be checked now."""
    return Refused(
        Reason.REASON_TOKEN_KEYS_UNAVAILABLE,
        f"the keys of {issuer.issuer} cannot be read now, so its tokens cannot be checked; retry",
        retry_after_seconds=SEEK_SECONDS,
    )
