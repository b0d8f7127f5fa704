"""An issuer's public keys, read from a JWK set (RFC 7517): which key may check which token.

What cannot be used is left out: other kinds of key, keys for encryption, weak ones, private ones. A set of
which nothing is left is no set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from broker.tokens.form import parse_strict_json, refuse

MAX_SET_BYTES = 512 * 1024
_MAX_KEYS = 200
_LEAST_RSA_BITS, _MOST_RSA_BITS = 2_048, 8_192  # NIST SP 800-131A; beyond the upper one checking is slow
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

Key = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class KeySetInvalid(Exception):
    """A document that is no set of keys with which anything could be checked."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, its name, and the algorithms for which it may be used."""

    key_id: str | None
    algorithms: frozenset[str]
    key: Key


class KeySet:
    """The keys of one issuer, as they were at one moment."""

    def __init__(self, keys: Collection[PublicKey]) -> None:
        self._keys = tuple(keys)
        self._named = {key.key_id: key for key in keys if key.key_id is not None}

    @property
    def names(self) -> list[str]:
        """The names of the keys, sorted; "?" for one without."""
        return sorted(key.key_id or "?" for key in self._keys)

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """Find the key of a token; None where the set has no key of this name.

        Raises:
            Refused: TOKEN_INVALID, the key is not for this algorithm, or the token does not say which.
        """
        if key_id is None:
            return self._find_only(algorithm)
        found = self._named.get(key_id)
        if found is not None and algorithm not in found.algorithms:
            raise refuse("the token's alg is not one for the key that it names")
        return found.key if found is not None else None

    def _find_only(self, algorithm: str) -> Key:
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if len(fitting) != 1:
            raise refuse(f"the token names no key (kid), and its issuer has {len(fitting)} that it could be")
        return fitting[0].key


def parse_key_set(data: bytes, allowed: Collection[str], issuer: str) -> KeySet:
    """Read a JWK set.

    Args:
        data: The document.
        allowed: The algorithms that the operator allows.
        issuer: Whose tokens the keys are to check.

    Raises:
        KeySetInvalid: It is none, or none of its keys can be used.
    """
    entries = [entry for entry in _read_entries(data) if _is_for_checking(entry, issuer)]
    keys = [key for entry in entries if (key := _read_key(entry, allowed)) is not None]
    named = Counter(key.key_id for key in keys if key.key_id is not None)
    # Of two keys with one name neither is believed.
    usable = [key for key in keys if key.key_id is None or named[key.key_id] == 1]
    if not usable:
        raise KeySetInvalid(f"has no key for {', '.join(sorted(allowed))}")
    return KeySet(usable)


def _read_entries(data: bytes) -> list[Any]:
    try:
        document = parse_strict_json(data) if len(data) <= MAX_SET_BYTES else None
    except ValueError as error:
        raise KeySetInvalid(f"is no JSON: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise KeySetInvalid(f"is no JWK set of at most {_MAX_KEYS} keys and {MAX_SET_BYTES} bytes")
    return entries


def _read_key(entry: dict[str, Any], allowed: Collection[str]) -> PublicKey | None:
    key_id = entry.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        return None
    try:
        key, algorithms = _read_material(entry)
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    algorithms &= frozenset(allowed)
    if "alg" in entry:
        algorithms &= {entry["alg"]} if isinstance(entry["alg"], str) else frozenset()
    return PublicKey(key_id, algorithms, key) if algorithms and key is not None else None


def _is_for_checking(entry: Any, issuer: str) -> bool:
    """Tell whether a key is public and meant for signatures; a published private key is anybody's.

    Entra publishes keys of other issuers in one set, and says with `issuer` whose each is; "{tenantid}" in it
    means anybody's.
    """
    if not isinstance(entry, dict):
        return False
    operations, whose = entry.get("key_ops", ["verify"]), str(entry.get("issuer", issuer))
    return (
        "d" not in entry
        and (whose == issuer or "{tenantid}" in whose)
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _read_material(entry: dict[str, Any]) -> tuple[Key | None, frozenset[str]]:
    kind, curve = entry.get("kty"), entry.get("crv")
    if kind == "RSA":
        key = cast(RSAPublicKey, RSAAlgorithm.from_jwk(entry))
        strong = _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS and key.public_numbers().e >= 65_537
        return (key, _RSA) if strong else (None, frozenset())
    if kind == "EC" and curve in _CURVES:
        return cast(EllipticCurvePublicKey, ECAlgorithm.from_jwk(entry)), frozenset({_CURVES[curve]})
    if kind == "OKP" and curve == "Ed25519":
        return cast(Ed25519PublicKey, OKPAlgorithm.from_jwk(entry)), frozenset({"EdDSA"})
    return None, frozenset()
