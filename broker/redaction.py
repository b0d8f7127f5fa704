"""Searches text and bytes for the secrets of one call, and takes them out of what leaves.

First form: the password raw, as base64 (its three alignments), as hex and reversed. A user name is no secret,
but it is nobody's business in an error text, so `clean` takes it out as well.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from credentials.lease import Lease

REDACTED = "[redacted]"


class Redaction:
    """The secrets of one call, in the spellings that are searched for."""

    def __init__(self, leases: Sequence[Lease]) -> None:
        self._secrets = [form for lease in leases for form in spellings(lease.password.reveal())]
        self._names = [lease.username for lease in leases]

    def finds(self, text: str) -> bool:
        """True when the text holds a secret in one of its spellings."""
        return any(form in text for form in self._secrets)

    def finds_bytes(self, data: bytes) -> bool:
        """True when the bytes hold a secret in one of its spellings."""
        return any(form.encode() in data for form in self._secrets)

    def clean(self, text: str) -> str:
        """Replace every secret and every minted user name."""
        for form in [*self._secrets, *self._names]:
            text = text.replace(form, REDACTED)
        return text


def spellings(secret: str) -> list[str]:
    """Write a secret the ways a tool would that hides it from a careless search."""
    raw = secret.encode()
    encoded = [_inner_base64(raw, shift) for shift in range(3)]
    return [secret, secret[::-1], raw.hex(), raw.hex().upper(), *encoded]


def _inner_base64(raw: bytes, shift: int) -> str:
    """Encode as it looks inside a longer text at an offset, without the characters that neighbours decide."""
    text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
    start = {0: 0, 1: 2, 2: 3}[shift]
    end = len(text) if (shift + len(raw)) % 3 == 0 else len(text) - 1
    return text[start:end]
