"""Undoes what hides a text from a plain search: `read` gives every reading of a text.

A reading is the text, from either end, with the escapes of JSON and of URLs undone and with everything gone
that nobody sees: white space, control and invisible characters. Escapes are undone up to three times, each
kind alone and both by turns, because undoing one kind can spoil what was written in the other; and once more
with the white space gone before, because that can stand within an escape.

Every step is a pass or two over the text at the speed of C, and there are at most 50 steps: the time is
linear in the text's length. `Way.trace` does the same step by step and says from which part of the text each
character of a reading came; it is slow, and needed only where something was found.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from credentials.spellings import UNSEEN, drop_unseen

_ORDERS = ("J", "P", "JJ", "PP", "JP", "PJ", "JJJ", "PPP", "JPJ", "PJP", "JPJP", "PJPJ")
"""In which order escapes are undone, of JSON (J) and of URLs (P); each goes on from a shorter one."""

# What JSON has, and what Python and JavaScript write beside it.
_ESCAPED = r"""u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4}|[abfnrtv"'/]"""
_HEX_PAIR = "[0-9a-fA-F]{2}"
_STRAY_BACKSLASH = re.compile(rf"\\(?!{_ESCAPED})")
_STRAY_PERCENT = re.compile(f"%(?!{_HEX_PAIR})")
_HELD_BACKSLASH, _HELD_PERCENT = "\ufdd0", "\ufdd1"  # noncharacters: texts have no use for them


@dataclass(frozen=True, slots=True)
class Step:
    """One pass over a text: `apply` takes it; `pattern` and `change` say the same match by match."""

    apply: Callable[[str], str]
    pattern: re.Pattern[str]
    change: Callable[[str], str]

    def trace(self, traced: Traced) -> Traced:
        """Take the step, and keep where everything came from."""
        pieces: list[str] = []
        starts, ends = array("L"), array("L")
        at = 0
        for match in self.pattern.finditer(traced.text):
            first, behind = match.span()
            new = self.change(match.group())
            start, end = traced.origin(first, behind)
            pieces += (traced.text[at:first], new)
            starts.extend(traced.starts[at:first])
            ends.extend(traced.ends[at:first])
            starts.extend([start] * len(new))
            ends.extend([end] * len(new))
            at = behind
        starts.extend(traced.starts[at:])
        ends.extend(traced.ends[at:])
        return Traced("".join([*pieces, traced.text[at:]]), starts, ends)


@dataclass(frozen=True, slots=True)
class Traced:
    """A reading, and where in the text the part begins and ends that each of its characters came from."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def begin(cls, text: str, *, backwards: bool) -> Traced:
        """Trace a text that nothing has been done to, from either end."""
        starts = array("L", range(len(text)))
        ends = array("L", range(1, len(text) + 1))
        return cls(text[::-1], starts[::-1], ends[::-1]) if backwards else cls(text, starts, ends)

    def origin(self, first: int, behind: int) -> tuple[int, int]:
        """Say which part of the text the characters from `first` up to `behind` came from."""
        last = behind - 1
        return min(self.starts[first], self.starts[last]), max(self.ends[first], self.ends[last])


@dataclass(frozen=True, slots=True)
class Way:
    """How a reading is made: from which end, and by which steps; what is not seen goes last."""

    backwards: bool
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Way:
        """Go one step further."""
        return Way(self.backwards, (*self.steps, step))

    def trace(self, text: str) -> Traced:
        """Read a text this way, and keep where everything came from."""
        traced = Traced.begin(text, backwards=self.backwards)
        for step in (*self.steps, _DROP_UNSEEN):
            traced = step.trace(traced)
        return traced


def read(text: str, *, forms: bool = False) -> Iterator[tuple[str, Way]]:
    """Give every reading of a text, with how it was made; some may be equal.

    Args:
        text: What may hide something; without lone surrogates.
        forms: True to read "+" as a space as well, as a form in a URL has it: it goes like one.
    """
    for backwards in (False, True):
        for reading, way in _read_on(text[::-1] if backwards else text, Way(backwards)):
            yield reading, way
            if forms and "+" in reading:
                yield _DROP_PLUS.apply(reading), way.then(_DROP_PLUS)


def _read_on(begun: str, way: Way) -> Iterator[tuple[str, Way]]:
    seen = drop_unseen(begun)
    yield seen, way
    if "\\" not in begun and "%" not in begun:
        return
    yield from _undo(begun, way)
    if seen != begun:
        yield from _undo(seen, way.then(_DROP_UNSEEN))


def _undo(begun: str, way: Way) -> Iterator[tuple[str, Way]]:
    """Undo escapes, in each order; an order whose last step finds nothing to undo leads no further."""
    undone: dict[str, tuple[str, Way]] = {"": (begun, way)}
    for order in _ORDERS:
        if order[:-1] not in undone:
            continue
        before, gone = undone[order[:-1]]
        step = _UNDO_JSON if order[-1] == "J" else _UNDO_PERCENT
        after = step.apply(before)
        if after != before:
            undone[order] = after, gone.then(step)
            yield drop_unseen(after), gone.then(step)


def _undo_json(text: str) -> str:
    """Undo every escape of a text: left to right, so that an escaped backslash begins no escape."""
    if "\\" not in text:
        return text
    text = text.replace("\\\\", _HELD_BACKSLASH).replace("\\/", "/")
    text = _STRAY_BACKSLASH.sub(_HELD_BACKSLASH, text)
    # The codec reads bytes as latin-1; what is beyond is given to it as escapes of its own.
    text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    if not text.isascii():  # joins surrogate pairs; one that stands alone is no character
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace(_HELD_BACKSLASH, "\\")


def _undo_percent(text: str) -> str:
    """Undo every %XX of a text."""
    if "%" not in text:
        return text
    text = _STRAY_PERCENT.sub(_HELD_PERCENT, text).replace("\\", "\\\\").replace("%", "\\x")
    raw = text.encode().decode("unicode_escape").encode("latin-1")
    return raw.decode(errors="replace").replace(_HELD_PERCENT, "%")


_UNDO_JSON = Step(_undo_json, re.compile(rf"(?:\\(?:{_ESCAPED}|\\))+"), _undo_json)
_UNDO_PERCENT = Step(_undo_percent, re.compile(f"(?:%{_HEX_PAIR})+"), _undo_percent)
_DROP_PLUS = Step(lambda text: text.replace("+", ""), re.compile(r"\++"), lambda _: "")
_DROP_UNSEEN = Step(drop_unseen, UNSEEN, lambda _: "")
