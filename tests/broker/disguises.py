"""The ways to write a secret that the leak scan promises to find: one list, for every test of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

Disguise = Callable[[str], str]


def base64_at(offset: int, encode: Callable[[bytes], bytes], *, padded: bool) -> Disguise:
    """Encode a secret as it stands inside a longer text, at one of the three alignments."""

    def disguise(secret: str) -> str:
        text = encode(b"abc"[:offset] + secret.encode()).decode()
        return text if padded else text.rstrip("=")

    return disguise


def percent_all(secret: str) -> str:
    return "".join(f"%{byte:02X}" for byte in secret.encode())


def percent_some(secret: str) -> str:
    letters = enumerate(secret)
    return "".join(quote(letter, safe="") if place % 3 else percent_all(letter) for place, letter in letters)


def escape_all(secret: str) -> str:
    units = secret.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def escape_some(secret: str) -> str:
    return "".join(
        escape_all(letter) if place % 2 else json.dumps(letter)[1:-1] for place, letter in enumerate(secret)
    )


def split_by(separator: str) -> Disguise:
    return separator.join


DISGUISES: dict[str, Disguise] = {
    "raw": str,
    "reversed": lambda secret: secret[::-1],
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "HeX": lambda secret: "".join(
        letter.upper() if place % 2 else letter for place, letter in enumerate(secret.encode().hex())
    ),
    **{
        f"{name}+{offset}{'' if padded else ' unpadded'}": base64_at(offset, encode, padded=padded)
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode))
        for offset in range(3)
        for padded in (True, False)
    },
    "percent, all": percent_all,
    "percent, lower case": lambda secret: percent_all(secret).lower(),
    "percent, some": percent_some,
    "percent, as needed": lambda secret: quote(secret, safe=""),
    "percent, as a form": quote_plus,
    "split by spaces": split_by(" "),
    "split by lines": split_by("\r\n"),
    "split by no-break spaces": split_by("\u00a0"),
    "split by em spaces": split_by("\u2003"),
    "split by zero-width spaces": split_by("\u200b"),
    "JSON": json.dumps,
    "JSON, all": escape_all,
    "JSON, some": escape_some,
    "JSON, slashes": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "JSON, twice": lambda secret: json.dumps(json.dumps(secret)),
    "JSON, all twice": lambda secret: escape_all(secret).replace("\\", "\\\\"),
    "split by JSON lines": lambda secret: "\\n".join(json.dumps(letter)[1:-1] for letter in secret),
    "split by JSON lines, twice": lambda secret: "\\\\n".join(
        json.dumps(json.dumps(letter))[3:-3] for letter in secret
    ),
}

STACKED: dict[str, Disguise] = {
    "base64 in lines": lambda secret: "\n".join(base64.b64encode(secret.encode()).decode()),
    "base64 in percent": lambda secret: percent_all(base64.b64encode(secret.encode()).decode()),
    "base64 backwards": lambda secret: base64.b64encode(secret.encode()).decode()[::-1],
    "backwards in base64": lambda secret: base64.b64encode(secret[::-1].encode()).decode(),
    "hex in spaces": lambda secret: secret.encode().hex(" "),
    "hex backwards": lambda secret: secret.encode().hex()[::-1],
    "hex in JSON": lambda secret: escape_all(secret.encode().hex()),
    "percent in percent": lambda secret: quote(quote(secret, safe=""), safe=""),
    "percent in JSON": lambda secret: escape_all(quote(secret, safe="")),
    "JSON in percent": lambda secret: percent_all(escape_all(secret)),
    "percent backwards": lambda secret: percent_all(secret)[::-1],
    "percent split": lambda secret: " ".join(percent_all(secret)),
    "JSON split": lambda secret: "\n".join(escape_all(secret)),
    "half percent, half JSON": lambda secret: percent_all(secret[:6]) + escape_all(secret[6:]),
}
"""What follows from undoing one after the other; not promised one by one."""
