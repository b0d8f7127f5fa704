"""The form of a token: one compact JWS (RFC 7515, section 3.1), read strictly.

Whoever can reach the door can send one, so each step is bounded and comes before any cryptography.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.errors import Refused
from toolcrib.v1.reasons_pb2 import Reason
from tools.strict_json import load_strict

MAX_TOKEN_CHARACTERS = 16 * 1024
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_KEY_ID = re.compile(r"[\x21-\x7e]{1,256}")
# What a header must not have: each lets the token say how, or with which key, it wants to be checked.
_FORBIDDEN = ("crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "cty")


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token; nothing has checked that its issuer made it.

    Attributes:
        key_id: The header's `kid`; None where it has none.
        token_type: The header's `typ`, in lower case; empty where it has none.
    """

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    token_type: str
    unverified_claims: Mapping[str, Any] = field(repr=False)


def refuse(message: str) -> Refused:
    """Make the refusal of a token; the message must hold no part of it that was not checked."""
    return Refused(Reason.REASON_TOKEN_INVALID, f"{message}; get a new token")


def read_authorization(values: Sequence[str]) -> str:
    """Take the one bearer token out of the values of metadata `authorization` (RFC 6750, section 2.1).

    Raises:
        Refused: TOKEN_INVALID.
    """
    if len(values) != 1:
        raise refuse("metadata authorization must come once")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise refuse('metadata authorization must be "Bearer TOKEN"')
    return token


def parse_token(text: str) -> UnverifiedToken:
    """Read a token without believing it.

    Raises:
        Refused: TOKEN_INVALID.
    """
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise refuse(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters")
    parts = text.split(".")
    if len(parts) == 5:
        raise refuse("the token is encrypted (JWE); a signed one (JWS) is expected")
    if len(parts) != 3:
        raise refuse(f"the token has {len(parts)} parts; a signed one has 3")
    header, claims = _read_object(parts[0], "header"), _read_object(parts[1], "claims")
    _decode(parts[2], "signature")
    found = [name for name in _FORBIDDEN if name in header]
    if found:
        raise refuse(f"the token's header has {found[0]}, which is not taken from a token")
    return UnverifiedToken(text, _read_text(header, "alg"), _read_key_id(header), _read_type(header), claims)


def _decode(part: str, what: str) -> bytes:
    """Decode base64url in its one canonical spelling: a second one would be a second token of equal worth."""
    if not _BASE64URL.fullmatch(part) or len(part) % 4 == 1:
        raise refuse(f"the token's {what} is no base64url")
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise refuse(f"the token's {what} is no base64url")
    return decoded


def _read_object(part: str, what: str) -> dict[str, Any]:
    try:
        read = parse_strict_json(_decode(part, what))
    except ValueError as error:
        raise refuse(f"the token's {what} is no JSON that can be believed") from error
    if not isinstance(read, dict):
        raise refuse(f"the token's {what} is no JSON object")
    return read


def parse_strict_json(data: bytes) -> Any:
    """Parse JSON of which every reader makes the same: UTF-8, no name twice, no NaN.

    Raises:
        ValueError: It is none.
    """
    try:
        return load_strict(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _read_text(header: Mapping[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str):
        raise refuse(f"the token's header has no {name}")
    return value


def _read_key_id(header: Mapping[str, Any]) -> str | None:
    if "kid" not in header:
        return None
    value = header["kid"]
    if not isinstance(value, str) or not _KEY_ID.fullmatch(value):
        raise refuse("the token's kid is no plain name of a key")
    return value


def _read_type(header: Mapping[str, Any]) -> str:
    value = header.get("typ", "")
    if not isinstance(value, str):
        raise refuse("the token's typ is no text")
    return value.lower().removeprefix("application/")
