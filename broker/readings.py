"""Undoes what hides a text from a plain search: `read` gives every reading of a text.

A reading is the text, from either end, with the escapes of JSON and of URLs undone and with everything gone
that nobody sees: white space, control and invisible characters. The escapes are undone up to three times,
each kind alone and both together, because undoing one kind can spoil what was written in the other.

Each step is one pass over the text, and there are at most 20 readings of one beginning: the time is linear in
the text's length. `trace` says for one reading which part of the text each of its characters came from.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LAYERS = 3
"""How often escapes are undone: JSON in JSON in JSON."""

_UNSEEN_ASCII = bytes([*range(0x21), 0x7F])
# White space as Unicode has it, controls, format characters, and those that are drawn as nothing.
_UNSEEN = re.compile(
    "[\\s\x00-\x20\x7f-\xa0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff]+"
)
_JSON = (
    r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\U000[0-9a-fA-F]{5}|\\U0010[0-9a-fA-F]{4}|\\[abfnrtv\"'/\\]"
)
_PERCENT = "%[0-9a-fA-F]{2}"

Change = Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class Step:
    """One pass over a text: every match of a pattern is written anew. Without `sign` there is no match."""

    sign: str
    pattern: re.Pattern[str]
    change: Change

    def apply(self, text: str) -> str:
        """Take the step."""
        return self.pattern.sub(self.change, text) if self.sign in text else text

    def trace(self, traced: Traced) -> Traced:
        """Take the step, and keep where everything came from."""
        pieces: list[str] = []
        starts, ends = array("L"), array("L")
        at = 0
        for match in self.pattern.finditer(traced.text):
            first, behind = match.span()
            new = self.change(match)
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
    """A reading, and for each of its characters where in the text the part begins and ends that it came from."""

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
    steps: tuple[Step, ...]

    def trace(self, text: str) -> Traced:
        """Read a text this way, and keep where everything came from."""
        traced = Traced.begin(text, backwards=self.backwards)
        for step in (*self.steps, _DROP_UNSEEN):
            traced = step.trace(traced)
        return traced


def read(text: str, *, forms: bool) -> Iterator[tuple[str, Way]]:
    """Give every reading that differs from the others, with how it was made.

    Args:
        text: What may hide something.
        forms: True to read "+" as a space as well, as a form in a URL has it.
    """
    for backwards in (False, True):
        begun = text[::-1] if backwards else text
        yield from _read_on(begun, Way(backwards, ()))
        if forms and "+" in begun:
            yield from _read_on(_SPACE_PLUS.apply(begun), Way(backwards, (_SPACE_PLUS,)))


def drop_unseen(text: str) -> str:
    """Remove white space, control and invisible characters."""
    if text.isascii():
        return text.encode().translate(None, _UNSEEN_ASCII).decode()
    return _UNSEEN.sub("", text)


def _read_on(begun: str, way: Way) -> Iterator[tuple[str, Way]]:
    yield drop_unseen(begun), way
    for step in _list_steps(begun):
        text, steps = begun, way.steps
        for _ in range(LAYERS):
            undone = step.apply(text)
            if undone == text:
                break
            text, steps = undone, (*steps, step)
            yield drop_unseen(text), Way(way.backwards, steps)


def _list_steps(text: str) -> tuple[Step, ...]:
    """List the ways to undo escapes that differ for this text; undoing one kind may bring up the other."""
    if "\\" in text:
        return (_UNDO_JSON, _UNDO_PERCENT, _UNDO_BOTH)
    return (_UNDO_PERCENT, _UNDO_BOTH) if "%" in text else ()


def _undo_json(match: re.Match[str]) -> str:
    return _SINGLE.get(match.group()) or _undo_run(match.group())


def _undo_run(run: str) -> str:
    # Python's own escapes are those of JSON but for "\\/".
    text = run.replace("\\/", "/").encode("latin-1").decode("unicode_escape")
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # joins surrogate pairs


def _undo_percent(match: re.Match[str]) -> str:
    return _SINGLE.get(match.group()) or _undo_percents(match.group())


def _undo_percents(run: str) -> str:
    return bytes.fromhex(run.replace("%", "")).decode("utf-8", "surrogateescape")


def _undo_one(match: re.Match[str]) -> str:
    run = match.group()
    return _SINGLE.get(run) or (_undo_percents(run) if run[0] == "%" else _undo_run(run))


# Each escape that stands alone costs a look-up; a text may consist of nothing else.
_SINGLE = {f"\\{letter}": _undo_run(f"\\{letter}") for letter in "abfnrtv\"'/\\"}
_SINGLE |= {run: _undo_percents(run) for byte in range(256) for run in (f"%{byte:02x}", f"%{byte:02X}")}
_UNDO_JSON = Step("\\", re.compile(f"(?:{_JSON})+"), _undo_json)
_UNDO_PERCENT = Step("%", re.compile(f"(?:{_PERCENT})+"), _undo_percent)
_UNDO_BOTH = Step("", re.compile(f"(?:{_JSON})+|(?:{_PERCENT})+"), _undo_one)
_SPACE_PLUS = Step("+", re.compile(r"\++"), lambda match: " " * len(match.group()))
_DROP_UNSEEN = Step("", _UNSEEN, lambda _: "")
