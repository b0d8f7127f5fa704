"""Writes a secret in the ways that readings do not undo: what is searched for in each reading of a text.

A secret is written as it is, in base64 and in hex, and reversed before it is written so. In base64 it stands
at one of three places of a longer text; the characters that its neighbours decide are left out. What is
itself base64, as a key's body, is written as the bytes that it stands for, too.

The broker searches what a tool gives for them, the HTTP proxy what a target answers. Standard library only:
the proxy loads it.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

UNSEEN_ASCII = bytes([*range(0x21), 0x7F])
# White space as Unicode has it, controls, format characters, and those that are drawn as nothing.
UNSEEN = re.compile(
    "[\\s\x00-\x20\x7f-\xa0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff]+"
)

MIN_CODED = 8
"""A coded form that is shorter is not searched for: it would be found anywhere."""
MIN_KEY_BODY = 24
"""So much base64 may stand for bytes."""


def drop_unseen(text: str) -> str:
    """Remove white space, control and invisible characters."""
    if text.isascii():
        return text.encode().translate(None, UNSEEN_ASCII).decode()
    return UNSEEN.sub("", text)


class Kind(enum.Enum):
    """How a reading is made like the spelling before it is searched."""

    PLAIN = "plain"
    BASE64 = "base64"
    HEX = "hex"

    def prepare(self, reading: str) -> str:
        """Make a reading comparable; its length stays."""
        if self is Kind.BASE64:
            return reading.replace("-", "+").replace("_", "/")
        if self is Kind.HEX:
            return reading.encode().lower().decode()
        return reading


class Spelling(NamedTuple):
    """One form of one credential's secret, and how a reading is made comparable with it."""

    credential: str
    kind: Kind
    text: str


def spell(credential: str, secret: str) -> Iterator[Spelling]:
    """Write a secret in every form that a reading can hold."""
    plain = [drop_unseen(secret)]
    if " " in secret:
        plain.append(plain[0].replace("+", ""))  # where "+" is read as a space, it goes
    yield from (Spelling(credential, Kind.PLAIN, text) for text in dict.fromkeys(plain) if text)
    raws = [secret.encode(), secret[::-1].encode(), *spell_bytes(secret)]
    for raw in dict.fromkeys(raws):
        coded = [(Kind.HEX, raw.hex()), *((Kind.BASE64, _inner_base64(raw, shift)) for shift in range(3))]
        yield from (Spelling(credential, kind, text) for kind, text in coded if len(text) >= MIN_CODED)


def spell_bytes(secret: str) -> list[bytes]:
    """Write the bytes that a secret stands for, forwards and backwards; none where it is no base64."""
    text = drop_unseen(secret).rstrip("=")
    if len(text) < MIN_KEY_BODY:
        return []
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return []
    return [raw, raw[::-1]]


def _inner_base64(raw: bytes, shift: int) -> str:
    """Encode as it looks inside a longer text at an offset, without the characters that neighbours decide."""
    text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
    start = {0: 0, 1: 2, 2: 3}[shift]
    end = len(text) if (shift + len(raw)) % 3 == 0 else len(text) - 1
    return text[start:end]
