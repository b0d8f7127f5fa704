"""Single values in JSON: what each kind of field accepts, as checks and as the patterns that say the same.

| kind | accepted |
|---|---|
| integer | a whole number in range, or its decimal digits in a string |
| float | a finite number, or one in a string |
| bytes | base64, standard or URL-safe |
| enum | the value's name, or its number |
| Timestamp, Duration, FieldMask | the string that protobuf's JSON mapping says, written in full |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from tools.shapes import Kind

INTEGER_PATTERN = "^(0|-?[1-9][0-9]*)$"
NUMBER_PATTERN = r"^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$"
BASE64_PATTERN = "^[A-Za-z0-9+/_-]*={0,2}$"
WHOLE_BASE64_PATTERN = "^([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2}(==)?|[A-Za-z0-9+/_-]{3}=?)?$"
PADDED_BASE64_PATTERN = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

TEXT_PATTERNS = {
    "google.protobuf.Timestamp": (
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
    ),
    "google.protobuf.Duration": "^-?[0-9]{1,12}([.][0-9]{1,9})?s$",
    "google.protobuf.FieldMask": "^([A-Za-z0-9._]+(,[A-Za-z0-9._]+)*)?$",
}
"""Messages that JSON writes as a string, and its form."""
WRAPPER_TYPES = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
"""Messages that JSON writes as their one value."""

_EXAMPLES = {
    "Timestamp": 'for example "2027-01-31T12:00:00Z"',
    "Duration": 'for example "1.5s"',
    "FieldMask": 'for example "name,address.city"',
}
_INTEGER, _NUMBER, _BASE64 = (re.compile(p) for p in (INTEGER_PATTERN, NUMBER_PATTERN, BASE64_PATTERN))
_UNSIGNED = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
_NARROW = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32)
_MAX_DIGITS = 20
_MAX_NUMBER_CHARACTERS = 400
MAX_FLOAT, MAX_DOUBLE = 3.4028234663852886e38, 1.7976931348623157e308


def check_json_value(kind: Kind, value: Any, descriptor: FieldDescriptor) -> str:
    """Say what is wrong with a value of a kind that is no message; empty when nothing is."""
    return _CHECKS[kind](value, descriptor)


def check_json_key(kind: Kind, name: str, descriptor: FieldDescriptor) -> str:
    """Say what is wrong with a map's key, which JSON always writes as a string; empty when nothing is."""
    if kind is Kind.BOOL:
        return "" if name in ("true", "false") else 'must be "true" or "false"'
    return check_json_value(kind, name, descriptor)


def check_json_text(value: Any, descriptor: Descriptor) -> str:
    """Say what is wrong with a Timestamp, Duration or FieldMask; empty when nothing is."""
    name = descriptor.name
    if not isinstance(value, str) or not re.fullmatch(TEXT_PATTERNS[descriptor.full_name], value):
        return f"must be a string with a {name}, {_EXAMPLES[name]}"
    try:
        json_format.ParseDict(value, GetMessageClass(descriptor)())  # type: ignore[arg-type]
    except (json_format.ParseError, ValueError, OverflowError):
        return f"is no {name} that exists; {_EXAMPLES[name]}"
    return ""


def find_integer_range(descriptor: FieldDescriptor) -> tuple[int, int]:
    """Return the least and the greatest value of an integer field that a contract accepts."""
    bits = 31 if descriptor.cpp_type in _NARROW else 63
    if descriptor.cpp_type in _UNSIGNED:
        return 0, 2 ** (bits + 1 if bits == 31 else bits) - 1
    return -(2**bits), 2**bits - 1


def _check_string(value: Any, _descriptor: FieldDescriptor) -> str:
    if not isinstance(value, str):
        return "must be a string"
    return "" if value.isascii() or _is_utf8(value) else "holds half of a surrogate pair"


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_bytes(value: Any, _descriptor: FieldDescriptor) -> str:
    return (
        ""
        if isinstance(value, str) and _BASE64.fullmatch(value) and _is_padded(value)
        else "must be a base64 string"
    )


def _is_padded(value: str) -> bool:
    body = value.rstrip("=")
    return len(body) % 4 != 1 and ("=" not in value or len(value) % 4 == 0)


def _check_bool(value: Any, _descriptor: FieldDescriptor) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _check_int(value: Any, descriptor: FieldDescriptor) -> str:
    least, greatest = find_integer_range(descriptor)
    number = _read_integer(value)
    if number is None:
        return "must be a whole number, or its digits in a string"
    return "" if least <= number <= greatest else f"must be from {least} to {greatest}"


def _read_integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if len(value) <= _MAX_DIGITS and _INTEGER.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _check_float(value: Any, descriptor: FieldDescriptor) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return "must be a number"
    if isinstance(value, str) and not (len(value) <= _MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(value)):
        return "must be a number, or one in a string"
    limit = MAX_FLOAT if descriptor.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else MAX_DOUBLE
    try:
        return "" if abs(float(value)) <= limit else "is too large for its type"
    except OverflowError:
        return "is too large for its type"


def _check_enum(value: Any, descriptor: FieldDescriptor) -> str:
    known = descriptor.enum_type
    assert known is not None, "called for enum fields only"
    if isinstance(value, str) and value in known.values_by_name:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and value in known.values_by_number:
        return ""
    return f"must be one of {', '.join(known.values_by_name)}"


_CHECKS: dict[Kind, Callable[[Any, FieldDescriptor], str]] = {
    Kind.STRING: _check_string,
    Kind.BYTES: _check_bytes,
    Kind.BOOL: _check_bool,
    Kind.INT: _check_int,
    Kind.FLOAT: _check_float,
    Kind.ENUM: _check_enum,
}
