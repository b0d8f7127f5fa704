r"""A lock of Python packages: `requirements.txt`, exact versions and their hashes, and nothing else.

The form is what `uv pip compile --generate-hashes` and `pip-compile --generate-hashes` write:

    name==1.2.3 \
        --hash=sha256:… \
        --hash=sha256:…

Everything else that pip understands is refused, because each of it fetches or runs something that no hash
covers, or lets a bundle's author choose from where the operator's machine fetches: an address, a version
control link, an editable package, a path, an index, an option, another file, an environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tools.errors import BundleInvalid, Violation, breach

FILE_NAME = "requirements.txt"
MAX_BYTES = 1024 * 1024
MAX_PACKAGES = 200
REMEDY = "write it with: uv pip compile --generate-hashes --python-version 3.11 requirements.in"

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PIN = re.compile(
    rf"(?P<name>{_NAME})(?:\[[A-Za-z0-9._, -]*\])?==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"(?P<rest>(?:\s.*)?)"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_COMMENT = re.compile(r"(^|\s)#.*$")
_REFUSED = (
    (re.compile(r"(-e|--editable)\b"), "is an editable package, which runs code while it is built"),
    (re.compile(r"(-i|--index-url|--extra-index-url|-f|--find-links|--trusted-host|--no-index)\b"),
     "names where to fetch from: the operator's machine says that, not the bundle"),
    (re.compile(r"(-r|--requirement|-c|--constraint)\b"), "names another file: write its lines here"),
    (re.compile(r"-"), "is an option: none is taken"),
    (re.compile(r"(git|hg|svn|bzr)\+"), "is a version control link, which no hash covers"),
    (re.compile(r"\S*\s*@"), "is an address: name the package and its version"),
    (re.compile(r"\S*://"), "is an address: name the package and its version"),
    (re.compile(r"\.|/|~"), "is a path: name the package and its version"),
    (re.compile(r".*\$\{"), "names a variable of the environment: write the value"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pin:
    """One package.

    Attributes:
        name: In the normal form of PEP 503, for example "typing-extensions".
        hashes: SHA-256 of each file that it may come as, hex.
    """

    name: str
    version: str
    hashes: frozenset[str]


def read_requirements(text: str, file: str = FILE_NAME) -> tuple[Pin, ...]:
    """Read a lock.

    Args:
        text: The file's text.
        file: What to call it in violations.

    Returns:
        Every package once, sorted by name.

    Raises:
        BundleInvalid: With every violation, at "requirements.txt:7".
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise BundleInvalid([breach("LOCK_INVALID", file, f"is larger than {MAX_BYTES} bytes")])
    pins: dict[str, Pin] = {}
    problems: list[Violation] = []
    for number, line in _logical_lines(text):
        problem = _find_problem(line)
        pin = _read_pin(line)
        if problem is None and pin is not None and pin.name in pins:
            problem = f"names {pin.name} a second time: keep one"
        if problem is not None:
            problems.append(breach("LOCK_INVALID", f"{file}:{number}", problem))
        elif pin is not None:
            pins[pin.name] = pin
    if len(pins) > MAX_PACKAGES:
        problems.append(
            breach("LOCK_INVALID", file, f"names {len(pins)} packages; the most is {MAX_PACKAGES}")
        )
    if problems:
        raise BundleInvalid(problems)
    return tuple(pins[name] for name in sorted(pins))


def normal_name(name: str) -> str:
    """Write a package's name in the normal form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Give each entry with the number of its first line: continuations joined, comments left out."""
    first = 0
    parts: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        first = first if parts else number
        bare = _COMMENT.sub("", line.rstrip("\r"))
        parts.append(bare.removesuffix("\\").strip())
        if not bare.endswith("\\"):
            whole = " ".join(part for part in parts if part)
            if whole:
                yield first, whole
            parts = []
    if parts:
        yield first, " ".join(parts)


def _find_problem(line: str) -> str | None:
    for pattern, reason in _REFUSED:
        if pattern.match(line):
            return f"{_quote(line)} {reason}"
    found = _PIN.fullmatch(line)
    if found is None:
        return f"{_quote(line)} pins no exact version: {REMEDY}"
    words = found["rest"].split()
    if words and words[0].startswith(";"):
        return f"{_quote(line)} has a condition: lock for the image alone, {REMEDY}"
    if not words:
        return f"{found['name']} has no hash: {REMEDY}"
    strange = next((word for word in words if not _HASH.fullmatch(word)), None)
    return None if strange is None else f"{_quote(strange)} is no --hash=sha256:… of 64 hexadecimal digits"


def _read_pin(line: str) -> Pin | None:
    found = _PIN.fullmatch(line)
    if found is None:
        return None
    hashes = frozenset(_HASH.findall(found["rest"]))
    return Pin(normal_name(found["name"]), found["version"], hashes)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
