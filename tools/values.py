"""What every message must satisfy beyond its own rules, and the canonical bytes.

Rules:
1. Known fields and known enum numbers only, at any depth (an open enum keeps 77 silently).
2. Numbers are finite; unsigned 64-bit values fit in 63 bits, because policies compare signed ones.
3. Amounts are at least 0 and name a currency. Timestamps and durations are in range.
4. At most 50 levels deep: protobuf itself stops at 100, and what follows must not.
5. Canonical bytes: protobuf's deterministic encoding of a message that satisfies 1. It is the same whatever
   order, packing or repetition the sender chose; golden vectors in the tests hold it over versions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tools.descriptors import list_unknown_numbers
from tools.errors import MessageInvalid, UnknownFields, Violation
from tools.shapes import RANGED_TYPES, Concern, Kind, MessageShape, Place, walk

MAX_DEPTH = 50
MAX_LONG = 2**63 - 1
MAX_VIOLATIONS = 100
"""So many are told at once: an answer has to fit into a status."""
WHOLE = "(message)"
"""What a violation names when it is about the message itself."""

_CURRENCY = re.compile(r"[A-Z]{3}")
_NEWER = "is not known to this version of the tool: remove it, or call a newer version"


@dataclass(frozen=True, slots=True)
class Destination:
    """The value of a field that says who or what is reached."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Amount:
    """The value of a field that says how much money moves."""

    field: str
    minor_units: int
    currency: str


def encode_canonical(message: Message) -> bytes:
    """Encode a checked message; equal messages give equal bytes."""
    return message.SerializeToString(deterministic=True)


def check_values(message: Message, shape: MessageShape, more: Sequence[Violation]) -> None:
    """Check rules 1 to 4, and raise with every violation: those found here, then `more`.

    Raises:
        UnknownFields: Rule 1 is broken.
        MessageInvalid: Another rule is broken, or `more` holds violations.
    """
    places = list(walk(message, shape, Concern.CHECKS))
    unknown = [*_find_unknown(message, shape), *_find_unknown_enums(places)]
    told = {violation.field for violation in more}
    invalid = [found for place in places for found in _check_place(place) if found.field not in told]
    raise_violations(unknown, [*invalid, *more])


def raise_violations(unknown: Sequence[Violation], invalid: Sequence[Violation]) -> None:
    """Raise all violations at once; what is unknown decides the class, because a newer version may know it.

    Raises:
        UnknownFields: There is something unknown.
        MessageInvalid: There are other violations.
    """
    found = [*unknown, *invalid]
    left_out = len(found) - MAX_VIOLATIONS
    if left_out > 0:
        found = [*found[:MAX_VIOLATIONS], Violation(WHOLE, f"{left_out} more violations are left out")]
    if unknown:
        raise UnknownFields(found)
    if invalid:
        raise MessageInvalid(found)


def collect_destinations(message: Message, shape: MessageShape) -> tuple[Destination, ...]:
    """Collect the non-empty values of destination fields, nested and repeated ones too."""
    return tuple(
        Destination(place.path, place.value)
        for place in walk(message, shape, Concern.DESTINATIONS)
        if place.field.roles.destination and place.value
    )


def collect_named(message: Message, shape: MessageShape) -> tuple[str, ...]:
    """Collect the destinations that a result names and vouches for: those that no stranger can write."""
    return tuple(
        place.value
        for place in walk(message, shape, Concern.DESTINATIONS)
        if place.field.roles.destination and not place.field.roles.untrusted and place.value
    )


def collect_amounts(message: Message, shape: MessageShape) -> tuple[Amount, ...]:
    """Collect the amounts that are set."""
    return tuple(
        Amount(place.path, place.value.minor_units, place.value.currency)
        for place in walk(message, shape, Concern.AMOUNTS)
        if place.field.roles.amount
    )


def _find_unknown(message: Message, shape: MessageShape) -> Iterator[Violation]:
    trimmed = type(message)()
    trimmed.CopyFrom(message)
    trimmed.DiscardUnknownFields()
    if trimmed.ByteSize() == message.ByteSize():
        return
    inside = ((p.path, p.value) for p in walk(message, shape, Concern.ALL) if p.field.kind is Kind.MESSAGE)
    for path, inner in (("", message), *inside):
        for number in list_unknown_numbers(inner):
            yield Violation(path or WHOLE, f"field number {number} {_NEWER}")


def _find_unknown_enums(places: list[Place]) -> Iterator[Violation]:
    for place in places:
        if place.field.kind is Kind.ENUM and place.value not in place.field.enum.values_by_number:
            yield Violation(place.path, f"enum number {place.value} {_NEWER}")


def _check_place(place: Place) -> Iterator[Violation]:
    if place.depth > MAX_DEPTH:
        if place.depth == MAX_DEPTH + 1:
            yield Violation(place.path, f"is nested deeper than {MAX_DEPTH} levels")
        return
    if place.field.kind is Kind.FLOAT and not math.isfinite(place.value):
        yield Violation(place.path, "must be a finite number")
    if place.field.kind is Kind.INT and place.value > MAX_LONG:
        yield Violation(place.path, f"must be at most {MAX_LONG}")
    if place.field.roles.amount:
        yield from _check_amount(place)
    if place.field.message is not None:
        check = _WELL_KNOWN.get(place.field.message.full_name)
        if check is not None and not check(place.value):
            yield Violation(place.path, "is out of the range that its type allows")


def _check_amount(place: Place) -> Iterator[Violation]:
    if place.value.minor_units < 0:
        yield Violation(f"{place.path}.minor_units", "an amount must be at least 0")
    if not _CURRENCY.fullmatch(place.value.currency):
        yield Violation(f"{place.path}.currency", 'must be an ISO 4217 code such as "EUR"')


def _is_timestamp(value: Any) -> bool:
    return bool(-62135596800 <= value.seconds <= 253402300799 and 0 <= value.nanos < 1_000_000_000)


def _is_duration(value: Any) -> bool:
    if value.seconds * value.nanos < 0:
        return False
    return bool(abs(value.seconds) <= 315576000000 and abs(value.nanos) < 1_000_000_000)


_WELL_KNOWN: dict[str, Callable[[Any], bool]] = dict(
    zip(RANGED_TYPES, (_is_timestamp, _is_duration), strict=True)
)
