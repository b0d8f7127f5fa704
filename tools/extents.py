"""How large a message type can get: a short text of types can stand for an endless one.

1. Depth: the levels of messages in messages; a type that holds itself is bounded at each call instead.
2. Fields written out: policies see a request as one record type, in which each use of a type is written
   again. Forty types that hold each other twice would make 2^40 attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.descriptor import Descriptor

from tools.errors import Violation, breach
from tools.shapes import is_recursive
from tools.values import MAX_DEPTH

MAX_WRITTEN_OUT = 1_000

_Held = dict[str, list[str]]


def find_endless_types(messages: Sequence[Descriptor], requests: Sequence[Descriptor]) -> Iterator[Violation]:
    """Yield types that nest too deep, and request types that are too large when written out."""
    held = _list_held(messages)
    depths = _measure_depths(held)
    too_deep = [name for name, depth in depths.items() if depth > MAX_DEPTH]
    for name in too_deep:
        yield breach("TOO_DEEP", name, f"nests deeper than {MAX_DEPTH} messages")
    if too_deep:
        return
    sizes = {message.full_name: len(message.fields) for message in messages}
    written: dict[str, int] = {}
    for name in sorted({request.full_name for request in requests}):
        if _count_fields(name, held, sizes, written) > MAX_WRITTEN_OUT:
            problem = f"has more than {MAX_WRITTEN_OUT} fields when every use of a type is written out"
            yield breach("TOO_WIDE", name, problem)


def _list_held(messages: Sequence[Descriptor]) -> _Held:
    """List the types that each type holds, once a field; without those that hold themselves."""
    recursive = {message.full_name for message in messages if is_recursive(message)}
    held: _Held = {}
    for message in messages:
        inner = (field.message_type for field in message.fields if field.message_type is not None)
        held[message.full_name] = [each.full_name for each in inner if each.full_name not in recursive]
    return held


def _measure_depths(held: _Held) -> dict[str, int]:
    """Count the levels of each type, up to one more than is allowed."""
    depths = dict.fromkeys(held, 1)
    for _ in range(MAX_DEPTH):
        depths = {name: 1 + max((depths.get(n, 1) for n in inner), default=0) for name, inner in held.items()}
    return depths


def _count_fields(name: str, held: _Held, sizes: dict[str, int], written: dict[str, int]) -> int:
    """Count the fields of a type with those of each use of a type inside; at most `MAX_DEPTH` calls deep."""
    if name not in written:
        inner = sum(_count_fields(each, held, sizes, written) for each in held.get(name, ()))
        written[name] = sizes.get(name, 0) + inner
    return written[name]
