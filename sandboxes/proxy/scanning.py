"""Searches what a target answers for the secrets that were added to the request, and takes them out.

    scanner = Scanner(prepare(access.injection), head.sent)
    headers = scanner.headers(headers)
    passed_on = scanner.feed(piece) …  then scanner.finish()

A target that repeats a request, in a page about an error or because it is asked to, would give the tool what
it must not have. Rules:
1. A secret is found as it is, reversed, in base64 of either alphabet at each alignment, in hex, all in any
   case, with escapes of URLs, JSON and HTML undone up to three times, and with white space and control
   characters between, wherever the pieces of the body are cut.
2. Half of it is found as well, where that is long enough: a target may cut what it repeats.
3. The time is linear in the length of the answer, whatever stands in it and wherever it is cut.
4. What came last is kept back until more comes, or the end: `MAX_GROWTH` times the longest spelling, whatever
   it says. A secret that is drawn out further passes; the broker's own scan of the tool's result has no such
   limit. A stream lags by that much, and by up to half of it more, which is searched at once.
5. A tool can have a target answer what the tool chose. So nothing that it sees, but what was found itself,
   hangs on how much of a secret some text is: neither how much is passed on when, nor how much is taken out
   around a half.
6. A target that means to tell the tool its secret can do it in a hundred other ways; this stops none of them.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from credentials.injection import SECRET_FIELDS, Injection
from credentials.spellings import MIN_CODED, Kind, spell, spell_bytes
from sandboxes.proxy.unescaping import (
    MAX_GROWTH,
    MAX_LEVELS,
    Level,
    Traced,
    fold,
    trace,
    unescape,
)

REDACTED = b"[redacted]"

RawHeaders = list[tuple[bytes, bytes]]

# Between headers: no secret holds it, and no reading drops it.
_BETWEEN = b"\x80"
# Characters of base64 at both ends of what is searched for hold some bits of the secret as well.
_MARGIN = 2
_BASE64 = frozenset((string.ascii_letters + string.digits + "+/=_-").encode())
# So much is read again for a single byte, and no more.
_EASY_BYTES = 64
# Backslashes that mean as much as none: pairs of pairs, for each level.
_PERIOD = 1 << MAX_LEVELS
# A half that is shorter is not searched for: it would be found anywhere.
_MIN_HALF = 8
# A tool that has a target answer its guesses sees which half was right: of few digits it tries them all.
_MIN_HEX_HALF = 12
_HEX = frozenset(b"0123456789abcdef")


class Needle(NamedTuple):
    """What is searched for: a spelling of a secret, or a half of one.

    Attributes:
        text: Folded.
        whole: The spelling that it is a part of, or is.
        offset: Where in the whole it begins.
        is_coded: It is in base64, whose neighbours hold some bits of the secret as well.
    """

    text: bytes
    whole: bytes
    offset: int
    is_coded: bool


@dataclass(frozen=True, slots=True, repr=False)
class Search:
    """The secrets of one credential as they are searched for."""

    needles: tuple[Needle, ...] = ()

    def join(self, needles: Iterable[Needle]) -> Search:
        """Search for more; what is searched for as a whole needs not be searched for as a half."""
        known = {needle.text: needle for needle in needles if needle.text}
        return Search(tuple((known | {needle.text: needle for needle in self.needles}).values()))


class _Span(NamedTuple):
    """A part of a text that holds a secret."""

    start: int
    end: int
    is_coded: bool


def prepare(injection: Injection | None) -> Search:
    """Write the secrets of a credential as they are searched for; once for a call, because it takes time."""
    search = Search()
    for name, value in injection.fields.items() if injection else ():
        if value and name in SECRET_FIELDS:
            secret = _strip_armour(value) if name == "private_key_pem" else value
            search = search.join(_spell_all(secret))
    return search


class Scanner:
    """Takes secrets out of one answer: its headers, its unpacked body as it comes, its trailers.

    Attributes:
        found: How often something was taken out.
    """

    __slots__ = (
        "_backslashes",
        "_held",
        "_held_bytes",
        "_kept_bytes",
        "_margin",
        "_needles",
        "_search",
        "found",
    )

    def __init__(self, search: Search | Injection | None, sent: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            search: What `prepare` made, or what was added; None: there is nothing to search for.
            sent: `OutgoingHead.sent` of the request.
        """
        self.found = 0
        self._search = search if isinstance(search, Search) else prepare(search)
        for text in sent:
            self._search = self._search.join(_spell_sent(text))
        self._needles = self._search.needles
        self._kept_bytes = MAX_GROWTH * max((len(needle.text) for needle in self._needles), default=0)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._backslashes = self._margin = 0

    @property
    def searches(self) -> bool:
        """Whether there is anything to search for."""
        return bool(self._needles)

    @property
    def held_bytes(self) -> int:
        """How much is kept back, or waits to be searched."""
        return self._held_bytes

    def headers(self, headers: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
        """Clean headers or trailers; one whose name holds a secret is left out."""
        if not self._holds(_BETWEEN.join(part for header in headers for part in header)):
            return list(headers)
        named = [(name, value) for name, value in headers if not self._holds(name)]
        self.found += len(headers) - len(named)
        return [(name, self.clean(value)) for name, value in named]

    def clean(self, data: bytes) -> bytes:
        """Clean what came whole, such as the words of a status line."""
        if not self._needles:
            return data
        clean = self._replace(data, self._find(data))
        self._margin = 0
        return clean

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the unpacked body.

        Returns:
            What can be passed on by now; may be empty. Its length hangs on how much came, and on what was
            found; on nothing else that the text says.
        """
        if not self._needles:
            return data
        self._hold(data)
        # What is kept is read again each time: not for each single byte that a target sends behind it.
        if 2 * (self._held_bytes - self._kept_bytes) < max(1, self._kept_bytes - _EASY_BYTES):
            return b""
        text, first = self._take_held()
        until = len(text) - self._kept_bytes
        # What begins behind is looked at again, when more of it may be there.
        spans = [span for span in self._find(text) if span.start < until + _MARGIN]
        until = max([until, *(span.end for span in spans)])
        self._hold(text[until:])
        self._backslashes = _count_backslashes(text[:until]) % _PERIOD
        text = text[:until]
        return self._replace(text, spans, self._skip_margin(text, first))

    def finish(self) -> bytes:
        """Give what is left of the body."""
        text, first = self._take_held()
        return self._replace(text, self._find(text), self._skip_margin(text, first))

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)

    def _take_held(self) -> tuple[bytes, int]:
        """Take what was held back, behind the backslashes before it: the number of those is given, too."""
        text = b"".join((b"\\" * self._backslashes, *self._held))
        self._held.clear()
        self._held_bytes = 0
        return text, self._backslashes

    def _holds(self, data: bytes) -> bool:
        return any(needle.text in fold(level.text) for level in unescape(data) for needle in self._needles)

    def _find(self, text: bytes) -> list[_Span]:
        """List the parts of a text that hold a secret, in order and without overlaps."""
        spans: list[_Span] = []
        levels: list[Level] = []
        for level in unescape(text):
            levels.append(level)
            folded = fold(level.text)
            needles = [needle for needle in self._needles if needle.text in folded]
            needles = [needle for needle in needles if not _is_always_whole(needle, folded)]
            if needles:
                traced = trace(levels)
                spans += (span for needle in needles for span in _locate(traced, needle))
        return _merge(spans)

    def _skip_margin(self, text: bytes, first: int) -> int:
        """Say where what was not taken out begins: neighbours of what was may have come in another piece."""
        most, self._margin = min(len(text), first + self._margin), 0
        return _widen(text, first, 1, most)

    def _replace(self, text: bytes, spans: Sequence[_Span], done: int = 0) -> bytes:
        """Take out spans, and leave away what stands before `done`."""
        pieces: list[bytes] = []
        for span in spans:
            if span.end <= done:
                continue
            self.found += 1
            start = max(span.start, done)
            pieces += (text[done : _widen(text, start, -1, done) if span.is_coded else start], REDACTED)
            done = span.end
            if span.is_coded:
                done = _widen(text, span.end, 1, len(text))
                self._margin = span.end + _MARGIN - done if done == len(text) else 0
        return b"".join([*pieces, text[done:]])


def _count_backslashes(text: bytes) -> int:
    """Count those at a text's end: they are read in pairs, and what follows is read by their number."""
    return len(text) - len(text.rstrip(b"\\"))


def _spell_all(secret: str) -> Iterator[Needle]:
    """Write a secret in every form, and as others read it who undo escapes that are none in it."""
    for text in (secret, secret.replace(" ", "+"), secret[::-1]):
        for level in unescape(text.encode()):
            yield from _split(fold(level.text), is_coded=False)
    for spelling in spell("", secret):
        whole = fold(spelling.text.encode())
        yield Needle(whole, whole, 0, spelling.kind is Kind.BASE64)
    for raw in map(fold, spell_bytes(secret)):
        if len(raw) >= MIN_CODED:
            yield Needle(raw, raw, 0, is_coded=False)


def _spell_sent(text: str) -> Iterator[Needle]:
    """Write what was made of a secret for one request, as it is and in base64.

    Half of a login may be its user name, which honest answers tell; its password is searched for by itself.
    """
    whole = fold(text.encode())
    yield from [Needle(whole, whole, 0, is_coded=False)] if ":" in text else _split(whole, is_coded=False)
    for spelling in spell("", text):
        if spelling.kind is Kind.BASE64:
            yield from _split(fold(spelling.text.encode()), is_coded=True)


def _split(whole: bytes, is_coded: bool) -> Iterator[Needle]:
    """Search for a spelling and its halves: a target may cut what it repeats, and the tool choose where."""
    half = len(whole) // 2
    if half >= (_MIN_HEX_HALF if _HEX.issuperset(whole) else _MIN_HALF):
        yield Needle(whole[:half], whole, 0, is_coded)
        yield Needle(whole[half:], whole, half, is_coded)
    yield Needle(whole, whole, 0, is_coded)


def _locate(traced: Traced, needle: Needle) -> Iterator[_Span]:
    """Say where a needle is found, with as much around it as its whole has.

    Whatever that says: were it compared, what is left of it would tell who knows one half the other one.
    """
    text, behind = traced.text, len(needle.whole) - needle.offset
    at = text.find(needle.text)
    while at >= 0:
        first, last = max(0, at - needle.offset), min(len(text), at + behind)
        yield _Span(*traced.origin(first, last), needle.is_coded)
        at = text.find(needle.text, at + len(needle.text))


def _is_always_whole(needle: Needle, text: bytes) -> bool:
    """Tell whether a half stands nowhere but in wholes, which are found by themselves."""
    return needle.text != needle.whole and text.count(needle.text) == text.count(needle.whole)


def _strip_armour(pem: str) -> str:
    return "".join(line.strip() for line in pem.splitlines() if not line.startswith("-"))


def _merge(spans: list[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = _Span(last.start, max(last.end, span.end), last.is_coded or span.is_coded)
        else:
            merged.append(span)
    return merged


def _widen(text: bytes, at: int, step: int, most: int) -> int:
    """Take in the neighbours that hold some bits of what was encoded."""
    for _ in range(_MARGIN):
        if at == most or text[at - (step < 0)] not in _BASE64:
            break
        at += step
    return at
