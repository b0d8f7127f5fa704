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
4. Only what may be the beginning of a secret is kept back until more comes, and of that no more than
   `MAX_GROWTH` times the longest spelling: a secret that is drawn out further passes. The broker's own scan
   of the tool's result has no such limit.
5. A target that means to tell the tool its secret can do it in a hundred other ways; this stops none of them.
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
    find_begun,
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
_HEAD = 4
# So much is read again for a single byte, and no more.
_EASY_BYTES = 64
# So much of a text's end is traced at first.
_TRACED_BYTES = 512
# A half that is shorter is not searched for: it would be found anywhere.
_MIN_HALF = 8


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
        "_held",
        "_longest",
        "_most_held",
        "_needles",
        "_search",
        "_waiting",
        "_waiting_bytes",
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
        self._longest = max((len(needle.text) for needle in self._needles), default=0)
        self._most_held = MAX_GROWTH * self._longest
        self._held = b""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    @property
    def searches(self) -> bool:
        """Whether there is anything to search for."""
        return bool(self._needles)

    @property
    def held_bytes(self) -> int:
        """How much is kept back, or waits to be searched."""
        return len(self._held) + self._waiting_bytes

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
        levels = list(unescape(data))
        return self._replace(data, self._find(levels, [fold(level.text) for level in levels]))

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the unpacked body.

        Returns:
            What can be passed on by now; may be empty.
        """
        if not self._needles:
            return data
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        # What is held is read again each time: not for each single byte that a target sends behind it.
        if 2 * self._waiting_bytes < len(self._held) - _EASY_BYTES:
            return b""
        text = self._take_held()
        levels = list(unescape(text))
        folded = [fold(level.text) for level in levels]
        until = len(text)
        begun = list(map(self._measure_begun, levels, folded))
        if any(begun):
            until = self._find_begun(text, begun)
        # What may be the beginning of more is looked at again when more comes.
        spans = [span for span in self._find(levels, folded) if span.start < until]
        until = max([until, *(span.end for span in spans)])
        self._held = text[until:]
        return self._replace(text[:until], spans)

    def finish(self) -> bytes:
        """Give what is left of the body; the beginning of a secret, if it is half of it, is one."""
        return self.clean(self._take_held())

    def _take_held(self) -> bytes:
        """Take what was held back, with all that came since."""
        text = b"".join((self._held, *self._waiting))
        self._held, self._waiting_bytes = b"", 0
        self._waiting.clear()
        return text

    def _holds(self, data: bytes) -> bool:
        return any(needle.text in fold(level.text) for level in unescape(data) for needle in self._needles)

    def _find(self, levels: Sequence[Level], folded: Sequence[bytes]) -> list[_Span]:
        """List the parts of the first level that hold a secret, in order and without overlaps."""
        spans: list[_Span] = []
        for number, text in enumerate(folded, 1):
            needles = [needle for needle in self._needles if needle.text in text]
            needles = [needle for needle in needles if not _is_always_whole(needle, text)]
            if needles:
                traced = trace(levels[:number])
                spans += (span for needle in needles for span in _locate(traced, needle))
        return _merge(spans)

    def _replace(self, text: bytes, spans: Sequence[_Span]) -> bytes:
        self.found += len(spans)
        pieces: list[bytes] = []
        done = 0
        for span in spans:
            start = _widen(text, span.start, -1, done) if span.is_coded else span.start
            pieces += (text[done:start], REDACTED)
            done = _widen(text, span.end, 1, len(text)) if span.is_coded else span.end
        return b"".join([*pieces, text[done:]])

    def _find_begun(self, text: bytes, begun: Sequence[int]) -> int:
        """Say from where on a text may be the beginning of a secret; what would be too much to hold is not.

        Args:
            text: As it came.
            begun: What `_measure_begun` says of each of its levels. Most beginnings are short: where the last
                bytes alone say the same, no more of the text is traced.
        """
        first, size = max(0, len(text) - self._most_held), _TRACED_BYTES
        while True:
            start = _align(text, first, len(text) - size)
            seen, until = self._trace_begun(text, start)
            if start == first or seen + seen[-1:] * (len(begun) - len(seen)) == begun:
                return until
            size *= 4

    def _trace_begun(self, text: bytes, start: int) -> tuple[list[int], int]:
        """Measure the levels of a text from `start` on, and say where the earliest beginning is."""
        seen: list[int] = []
        until = len(text)
        levels: list[Level] = []
        for level in unescape(text[start:]):
            levels.append(level)
            folded = fold(level.text)
            seen.append(self._measure_begun(level, folded))
            if seen[-1]:
                until = min(until, start + trace(levels).starts[len(folded) - seen[-1]])
        return seen, until

    def _measure_begun(self, level: Level, folded: bytes) -> int:
        """Count the bytes at a folded level's end that may be the beginning of a secret, or of an escape."""
        most = self._overlap(folded)
        for begun in find_begun(level.text):
            escape = len(fold(level.text[begun:]))
            most = max(most, escape + self._overlap(folded[: len(folded) - escape]))
        return most

    def _overlap(self, folded: bytes) -> int:
        """Count the bytes at a folded text's end with which a secret may begin."""
        tail = folded[-self._longest :]
        return max((_measure_overlap(tail, needle.text) for needle in self._needles), default=0)


def _align(text: bytes, first: int, start: int) -> int:
    """Move a place back to where a run of backslashes is read in pairs as it is from its beginning on."""
    if start <= first:
        return first
    run = start - first - len(text[first:start].rstrip(b"\\"))
    return start - run % (1 << MAX_LEVELS)


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
    if half >= _MIN_HALF:
        yield Needle(whole[:half], whole, 0, is_coded)
        yield Needle(whole[half:], whole, half, is_coded)
    yield Needle(whole, whole, 0, is_coded)


def _locate(traced: Traced, needle: Needle) -> Iterator[_Span]:
    """Say where a needle is found, with as much of its whole around it as there is."""
    text, before, behind = traced.text, needle.whole[: needle.offset], needle.offset + len(needle.text)
    at = text.find(needle.text)
    while at >= 0:
        end = at + len(needle.text)
        left = _count_same(before[::-1], text[max(0, at - len(before)) : at][::-1])
        right = _count_same(needle.whole[behind:], text[end : end + len(needle.whole) - behind])
        yield _Span(*traced.origin(at - left, end + right), needle.is_coded)
        at = text.find(needle.text, end)


def _is_always_whole(needle: Needle, text: bytes) -> bool:
    """Tell whether a half stands nowhere but in wholes, which are found by themselves."""
    return needle.text != needle.whole and text.count(needle.text) == text.count(needle.whole)


def _count_same(one: bytes, other: bytes) -> int:
    """Count with how many equal bytes two begin; by halving, because a target may have it done often."""
    if one == other:
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


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


def _measure_overlap(folded: bytes, needle: bytes) -> int:
    """Count the bytes of a needle with which a text breaks off."""
    tail = folded[-len(needle) + 1 :] if len(needle) > 1 else b""
    at = tail.find(needle[:_HEAD])
    while at >= 0:
        if needle.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(needle[:_HEAD], at + 1)
    return next(
        (few for few in range(_HEAD - 1, 0, -1) if few < len(needle) and tail.endswith(needle[:few])), 0
    )
