"""Checks tokens: which issuer, which key, the signature, the claims.

A token that was checked once is remembered by its SHA-256 until it ends; its key is looked up each time, so
that a key that is gone takes its tokens with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from broker.errors import Refused
from broker.identity_settings import Identity
from broker.model import Caller
from broker.settings import SettingsInvalid
from broker.tokens.claims import check_audience, make_caller, read_validity
from broker.tokens.documents import KeysUnavailable
from broker.tokens.form import UnverifiedToken, parse_token, read_authorization, refuse
from broker.tokens.key_source import KeySource, Monotonic, make_key_source
from broker.tokens.keys import Key

_MAX_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a checked token says, and what its validity hangs on."""

    caller: Caller
    begins: float
    ends: float
    source: KeySource
    key_id: str | None
    algorithm: str
    key: Key


class Tokens:
    """The tokens that this broker takes. Use as an async context manager."""

    def __init__(
        self, identity: Identity, clock: Callable[[], datetime], monotonic: Monotonic = time.monotonic
    ) -> None:
        self._sources = {issuer.issuer: make_key_source(issuer, monotonic) for issuer in identity.issuers}
        self.prefixes = identity.prefixes
        self._clock = clock
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()
        self._parts = AsyncExitStack()

    async def __aenter__(self) -> Tokens:
        """Read the keys of all issuers.

        Raises:
            SettingsInvalid: A file of keys cannot be used.
        """
        try:
            for source in self._sources.values():
                self._parts.push_async_callback(source.close)
            await asyncio.gather(*(source.start() for source in self._sources.values()))
        except KeysUnavailable as error:
            await self._parts.aclose()
            raise SettingsInvalid(f"identity.issuers: jwks_file: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop reading keys."""
        await self._parts.aclose()

    async def prepare(self, values: Sequence[str]) -> None:
        """Have the key of a token at hand, if its issuer has it. Refuses nothing; `check` does."""
        try:
            text = read_authorization(values)
            if _digest(text) in self._known:
                return
            token = parse_token(text)
            await self._source(token).seek(token.key_id)
        except Refused:
            return

    def check(self, values: Sequence[str]) -> Caller:
        """Prove who sends a token.

        Args:
            values: Of metadata `authorization`.

        Raises:
            Refused: TOKEN_INVALID, TOKEN_KEYS_UNAVAILABLE.
        """
        text = read_authorization(values)
        digest = _digest(text)
        known = self._known.get(digest)
        if known is None or known.source.find(known.key_id, known.algorithm) != known.key:
            known = self._verify(parse_token(text))
            self._remember(digest, known)
        now = self._clock().timestamp()
        if now >= known.ends:
            raise refuse("the token has expired (exp)")
        if now < known.begins:
            raise refuse("the token is not valid yet (nbf, iat)")
        return known.caller

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._known[digest] = verified
        self._known.move_to_end(digest)
        if len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _source(self, token: UnverifiedToken) -> KeySource:
        name = token.unverified_claims.get("iss")
        source = self._sources.get(name) if isinstance(name, str) else None
        if source is None:
            raise refuse("the token is of an issuer (iss) that this broker does not take")
        return source

    def _verify(self, token: UnverifiedToken) -> _Verified:
        source = self._source(token)
        issuer = source.issuer
        if token.algorithm not in issuer.algorithms:
            raise refuse("the token's alg is not one that this broker takes of its issuer")
        if issuer.token_type and token.token_type != issuer.token_type.lower().removeprefix("application/"):
            raise refuse(f"the token's typ is not {issuer.token_type}")
        key = source.find(token.key_id, token.algorithm)
        _check_signature(token, key)
        claims = token.unverified_claims  # from here on they are the issuer's word
        check_audience(claims, issuer)
        begins, ends = read_validity(claims, issuer)
        caller = make_caller(claims, issuer)
        return _Verified(caller, begins, ends, source, token.key_id, token.algorithm, key)


def _check_signature(token: UnverifiedToken, key: Key) -> None:
    try:
        PyJWS(algorithms=[token.algorithm]).decode_complete(token.text, key, algorithms=[token.algorithm])
    except (PyJWTError, ValueError, TypeError) as error:
        raise refuse("the token's signature is not its issuer's") from error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
