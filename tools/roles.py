"""The roles of fields: what `(toolcrib.v1.field)` says, and where it may be said.

| role | on | what follows |
|---|---|---|
| secret | any field | hidden from policies, and from the texts of violations |
| destination | string, repeated string | gated whatever the effect |
| amount | message with `int64 minor_units`, `string currency` | at least 0, ISO 4217, in budgets |
| untrusted | string, repeated string | cleaned in results as `content` says (tools/content) |
| probe | one string, bool or message | what a probe's field is for (tools/probes.py) |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from toolcrib.v1 import options_pb2
from tools.content.kinds import Format
from tools.descriptors import read_options

_PROBE_TYPES = {
    options_pb2.PROBE_KEY: FieldDescriptor.TYPE_STRING,
    options_pb2.PROBE_HAPPENED: FieldDescriptor.TYPE_BOOL,
    options_pb2.PROBE_RESULT: FieldDescriptor.TYPE_MESSAGE,
}


@dataclass(frozen=True, slots=True)
class Roles:
    """What one field's option says."""

    secret: bool = False
    destination: bool = False
    amount: bool = False
    untrusted: bool = False
    content: Format = Format.TEXT


def read_roles(field: FieldDescriptor) -> Roles:
    """Read the roles of a field; a field without the option is a plain value."""
    option = _read(field)
    is_named = option.content in options_pb2.Content.DESCRIPTOR.values_by_number
    content = Format(option.content or Format.TEXT) if is_named else Format.TEXT
    return Roles(option.secret, option.destination, option.amount, option.untrusted, content)


def read_probe_role(field: FieldDescriptor) -> int:
    """Read what a field is for in a probe; 0 for nothing."""
    return _read(field).probe


def find_misplaced_roles(field: FieldDescriptor) -> Iterator[str]:
    """Yield, with the remedy, each role that this field's type cannot carry."""
    option = _read(field)
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if option.destination and not is_text:
        yield "destination is for string and repeated string fields"
    if option.untrusted and not is_text:
        yield "untrusted is for string and repeated string fields"
    if option.amount and not is_amount(field.message_type):
        yield "amount is for a message with `int64 minor_units` and `string currency`"
    if option.secret and (option.destination or option.amount):
        yield "a secret field cannot be a destination or an amount: those are shown to policies and people"
    if option.content not in options_pb2.Content.DESCRIPTOR.values_by_number:
        yield f"content {option.content} is unknown: use TEXT, HTML, MARKDOWN or JSON"
    if option.content and not option.untrusted:
        yield "content says how an untrusted field is cleaned: set untrusted, or remove content"
    if option.probe and (field.is_repeated or _PROBE_TYPES.get(option.probe) != field.type):
        yield "probe is for one field each: PROBE_KEY a string, PROBE_HAPPENED a bool, PROBE_RESULT a message"


def is_amount(message: Descriptor | None) -> bool:
    """Tell whether a message type has the fields of an amount."""
    if message is None:
        return False
    units, currency = (message.fields_by_name.get(name) for name in ("minor_units", "currency"))
    return (
        units is not None
        and currency is not None
        and (units.type, currency.type) == (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_STRING)
        and not (units.is_repeated or currency.is_repeated)
    )


def _read(field: FieldDescriptor) -> options_pb2.FieldOptions:
    option = read_options(field.GetOptions(), "toolcrib.v1.field")
    raw = b"" if option is None else option.SerializeToString()
    return options_pb2.FieldOptions.FromString(raw)
