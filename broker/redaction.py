"""Searches text and bytes for the secrets of one call, and takes them out of what leaves.

What is found is said in docs/security.md, "What the leak scan finds". A user name is no secret, but it is
nobody's business in an error text, so `clean` takes it out as well.

Rules:
1. Searching is linear in the text; a long one is searched off the event loop (`off_loop`).
2. Only the part that holds a secret is replaced. Where that part cannot be told, all of the text is.
3. It has no repr, no fields and no message that shows a secret.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from broker.readings import Traced, Way, read
from credentials.lease import Lease
from credentials.spellings import Kind, Spelling, spell, spell_bytes
from sandboxes.conversation import CUT_NOTE

REDACTED = "[redacted]"
OFF_LOOP_CHARACTERS = 4_096
"""What is longer is searched in a thread: the event loop is everybody's, and so much can be a thousand
values."""
LONG_CHARACTERS = 256 * 1024
"""What is longer waits for its own kind, so that one tool's long results keep nobody else's waiting."""

# Each round takes out what one way of reading finds; there are fewer ways that find anything in honest text.
_ROUNDS = 16
# So much of a secret's beginning is taken away where a log was cut.
_MIN_CUT = 6
# Characters of base64 at both ends of what is searched for hold some bits of the secret as well.
_MARGIN_CHARACTERS = 2
# Bytes beyond ASCII as a control character, which is read like white space.
_NOT_SEEN = bytes([*range(0x80), *[1] * 0x80])
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=_-")

Found = frozenset[str]
"""Names of credentials, as the manifest has them."""
NOTHING: Found = frozenset()

T = TypeVar("T")
# More of them would only take the interpreter from the event loop.
_LONG = ThreadPoolExecutor(2, thread_name_prefix="long-results")


class Cleaned(NamedTuple):
    """A text without secrets, and the credentials whose secrets it held."""

    text: str
    found: Found


class Redaction:
    """The secrets of one call, in the spellings that are searched for."""

    __slots__ = ("_binary", "_forms", "_is_ascii", "_names", "_spellings", "longest", "shortest")

    def __init__(self, leases: Sequence[Lease]) -> None:
        """Prepare.

        Args:
            leases: The call's credentials.
        """
        secrets = [
            (lease.credential, _make_encodable(secret.reveal()))
            for lease in leases
            for secret in lease.secrets
            if secret
        ]
        self._spellings: dict[Kind, list[Spelling]] = {kind: [] for kind in Kind}
        for credential, secret in secrets:
            for spelling in spell(credential, secret):
                self._spellings[spelling.kind].append(spelling)
        self._binary = [(name, raw) for name, secret in secrets for raw in spell_bytes(secret)]
        self._is_ascii = all(secret.isascii() for _, secret in secrets)
        self._forms = any(" " in secret for _, secret in secrets)
        self._names = [lease.username for lease in leases if lease.username]
        lengths = [len(each.text) for group in self._spellings.values() for each in group]
        self.longest = max(lengths, default=0)
        self.shortest = min([*lengths, *(len(raw) for _, raw in self._binary)], default=0)

    def find(self, text: str) -> Found:
        """Name the credentials whose secrets a text holds."""
        if len(text) < self.shortest or not self.longest:
            return NOTHING
        return frozenset(
            spelling.credential for reading, _ in self._read(text) for spelling in self._search(reading)
        )

    def find_bytes(self, data: bytes) -> Found:
        """Name the credentials whose secrets bytes hold, as text or as the bytes of a key."""
        binary = {name for name, raw in self._binary if raw in data}
        return self.find(self._read_bytes(data)) | binary

    def _read_bytes(self, data: bytes) -> str:
        """Read bytes as text; in what is none, only ASCII can tell a secret that is ASCII."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.translate(_NOT_SEEN).decode() if self._is_ascii else data.decode(errors="replace")

    def clean(self, text: str) -> Cleaned:
        """Replace every secret and every minted user name."""
        text, found = self._take_out(text)
        for name in self._names:
            text = text.replace(name, REDACTED)
        return Cleaned(text, found)

    def clean_log(self, text: str) -> Cleaned:
        """Clean a log, also of a secret of which only the beginning is there: a log is cut at its cap."""
        body = text.removesuffix(CUT_NOTE)
        end = text[len(body) :]
        body, found = self.clean(body)
        body, begun = self._take_end_out(body)
        return Cleaned(body + end, found | begun)

    def _read(self, text: str) -> Iterable[tuple[str, Way]]:
        return read(_make_encodable(text), forms=self._forms)

    def _compare(self, reading: str) -> Iterator[tuple[Spelling, str]]:
        """Give every spelling, with the reading as it is compared with it."""
        for kind, group in self._spellings.items():
            prepared = kind.prepare(reading) if group else ""
            for spelling in group:
                yield spelling, prepared

    def _search(self, reading: str) -> list[Spelling]:
        """List the spellings that a reading holds."""
        return [spelling for spelling, prepared in self._compare(reading) if spelling.text in prepared]

    def _take_out(self, text: str) -> tuple[str, Found]:
        """Replace what holds a secret, one way of reading after the other, until none finds any."""
        found: set[str] = set()
        if len(text) < self.shortest or not self.longest:
            return text, NOTHING
        for _ in range(_ROUNDS):
            hit = self._first_hit(text)
            if hit is None:
                return text, frozenset(found)
            way, spellings = hit
            found.update(spelling.credential for spelling in spellings)
            spans = _find_spans(way.trace(text), spellings)
            if not spans:
                break
            text = _replace(text, spans)
        return REDACTED, frozenset(found)

    def _first_hit(self, text: str) -> tuple[Way, list[Spelling]] | None:
        for reading, way in self._read(text):
            if spellings := self._search(reading):
                return way, spellings
        return None

    def _take_end_out(self, text: str) -> tuple[str, Found]:
        """Replace the beginning of a secret at a text's end; most of one counts as a find."""
        begin = max(
            0, len(text) - 8 * self.longest
        )  # an escape has up to ten characters, a few are invisible
        tail = text[begin:]
        for reading, way in self._read(tail):
            for spelling, prepared in self._compare(reading):
                length = _measure_overlap(prepared, spelling.text, backwards=way.backwards)
                if length:
                    most = length > len(spelling.text) // 2
                    cut = begin + _locate_overlap(way.trace(tail), length, backwards=way.backwards)
                    return text[:cut] + REDACTED, frozenset({spelling.credential}) if most else NOTHING
        return text, NOTHING


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Do work on so many characters: here, or in a thread where it would keep the event loop."""
    if size < OFF_LOOP_CHARACTERS:
        return work()
    pool = _LONG if size >= LONG_CHARACTERS else None
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _make_encodable(text: str) -> str:
    """Replace lone surrogates: what no protobuf can hold must not break the search."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _find_spans(traced: Traced, spellings: Iterable[Spelling]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for spelling in spellings:
        prepared = spelling.kind.prepare(traced.text)
        at = prepared.find(spelling.text)
        while at >= 0:
            behind = at + len(spelling.text)
            first, last = (
                (at, behind - 1) if spelling.kind is not Kind.BASE64 else _widen(traced, at, behind - 1)
            )
            spans.append(traced.origin(first, last + 1))
            at = prepared.find(spelling.text, behind)
    return spans


def _widen(traced: Traced, first: int, last: int) -> tuple[int, int]:
    """Take in the neighbours that hold some bits of what was encoded."""
    for _ in range(_MARGIN_CHARACTERS):
        if first > 0 and _is_one(traced, first - 1, first):
            first -= 1
        if last + 1 < len(traced.text) and _is_one(traced, last + 1, last):
            last += 1
    return first, last


def _is_one(traced: Traced, place: int, neighbour: int) -> bool:
    """Tell whether a place holds base64 and stands right beside another one, also in the text itself."""
    touches = traced.ends[place] == traced.starts[neighbour] or traced.starts[place] == traced.ends[neighbour]
    return touches and traced.text[place] in _BASE64


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    done = 0
    for first, behind in sorted(spans):
        if first >= done:
            pieces += (text[done:first], REDACTED)
        done = max(done, behind)
    return "".join([*pieces, text[done:]])


def _measure_overlap(text: str, spelling: str, *, backwards: bool) -> int:
    """Count the characters of a spelling with which a text breaks off; 0 where they are few."""
    if backwards:  # the text's end comes first, and with it the spelling's
        text, spelling = text[::-1], spelling[::-1]
    most = text[-len(spelling) + 1 :]
    at = most.find(spelling[:_MIN_CUT])
    while at >= 0:
        if spelling.startswith(most[at:]):
            return len(most) - at if len(most) - at >= _MIN_CUT else 0
        at = most.find(spelling[:_MIN_CUT], at + 1)
    return 0


def _locate_overlap(traced: Traced, length: int, *, backwards: bool) -> int:
    end = len(traced.text)
    return traced.origin(0, length)[0] if backwards else traced.origin(end - length, end)[0]
