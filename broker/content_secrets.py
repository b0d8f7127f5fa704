"""Secrets in content with markup, where cleaning would write them differently.

What is cleaned is searched afterwards (broker/held_values.py). But a secret like `a*b<c>d` stands in a page
as it is, and in what comes out of it with marks between its letters, or without some of them. So fields with
markup are searched twice more: as they came, and cleaned, without the marks.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from broker.redaction import NOTHING, REDACTED, Found, Redaction
from tools.content.fields import put_back
from tools.content.kinds import Cleaned, Format, Removed
from tools.content.markdown_marks import strip_marks
from tools.contract import Contract

Reading = Callable[[str], str]


def take_out_raw(contract: Contract, message: Message, redaction: Redaction) -> tuple[Message, Found]:
    """Replace fields with markup that hold a secret as it is, before they are cleaned."""
    return _take_out(contract, message, redaction, {Format.HTML: str, Format.MARKDOWN: str})


def take_out_marked(contract: Contract, message: Message, redaction: Redaction) -> tuple[Message, Found]:
    """Replace cleaned fields that hold a secret between marks."""
    return _take_out(contract, message, redaction, {Format.MARKDOWN: strip_marks})


def _take_out(
    contract: Contract, message: Message, redaction: Redaction, readings: dict[Format, Reading]
) -> tuple[Message, Found]:
    copy, pieces = contract.open_content(message)
    found: Found = NOTHING
    done: list[Cleaned] = []
    for piece in pieces:
        read = readings.get(piece.form)
        held = redaction.find(read(piece.text)) if read is not None else NOTHING
        found |= held
        done.append(Cleaned(REDACTED if held else piece.text, Removed()))
    put_back(pieces, done)
    return copy, found
