"""Which destinations a trusted result names of itself, and not because the request held them.

A tool that gives back what it was asked would let an agent name any destination. So a value is left out that
stood in the request: as it is, or tidied up (case, width, spaces, punctuation, percent signs), or put
together from neighbouring fields. What a tool makes of its request in any other way is its contract's
business: such a field of the request has to be a destination itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

from google.protobuf.message import Message

from broker.model import Call
from broker.redaction import off_loop

MAX_REQUEST_BYTES = 16 * 1024
"""The answer to a longer request names nothing: a look-up is short, and each value is sought in all of it."""
MAX_NAMED = 1_000
"""So many values of one answer are looked at."""
_MAX_UNQUOTED = 3


async def find_named(call: Call, result: bytes) -> Sequence[str]:
    """Find the destinations that the answer of a call names; `result` is in canonical bytes."""
    if not call.contract.names_destinations or len(call.canonical) > MAX_REQUEST_BYTES:
        return ()
    return await off_loop(len(result), lambda: _find_named(call, result))


def _find_named(call: Call, result: bytes) -> Sequence[str]:
    asked = list(_fold_request(call.message))
    values = dict.fromkeys(call.contract.result_destinations(result))
    return [
        value for value in islice(values, MAX_NAMED) if not any(fold(value) in request for request in asked)
    ]


def fold(text: str) -> str:
    """Leave of a text what stays when it is tidied up: letters and digits, in one case and width."""
    return "".join(filter(str.isalnum, normalize("NFKC", text).casefold()))


def _fold_request(message: Message) -> Iterator[str]:
    """Write all that a request says, one after the other; with its percent signs, and without."""
    text = "\n".join(_list_words(message))
    for _ in range(_MAX_UNQUOTED):
        yield fold(text)
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded
    yield fold(text)


def _list_words(value: Any) -> Iterator[str]:
    """List the values in a message, the keys of maps among them, in the order of its fields."""
    if isinstance(value, Message):
        for _, inner in value.ListFields():
            yield from _list_words(inner)
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield str(key)
            yield from _list_words(value[key])
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, str) or not isinstance(value, Sequence):
        yield str(value)
    else:
        for inner in value:
            yield from _list_words(inner)
