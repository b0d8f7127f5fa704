"""JSON of a message: one strict reading, and one way of writing.

Protobuf's own reader is lenient: it takes two spellings of one field (the last wins), "1_000" for an integer,
"!!!" for bytes, "1" for an enum, a list for a message. What it would guess is refused here, with every
violation at once; only what is left goes to it.

A field is named by its JSON name or its proto name, once; `null` is the same as leaving it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tools.errors import MessageMalformed, Violation
from tools.json_values import TEXT_PATTERNS, WRAPPER_TYPES, check_json_key, check_json_text, check_json_value
from tools.shapes import FieldShape, MessageShape, quote_key
from tools.strict_json import load_strict
from tools.values import MAX_DEPTH, MAX_VIOLATIONS, WHOLE

_MAX_NAME_CHARACTERS = 64
_MAX_NAMES = 30


@dataclass(slots=True)
class JsonReading:
    """What came of reading.

    Attributes:
        message: Made of the members that could be read; where there are violations it is only good for
            finding the others.
        unknown: Names that the type does not know.
        invalid: Values of the wrong type.
    """

    message: Message
    unknown: list[Violation] = field(default_factory=list)
    invalid: list[Violation] = field(default_factory=list)
    depth: int = 0

    @property
    def found(self) -> int:
        """The number of violations so far."""
        return len(self.unknown) + len(self.invalid)

    def tells(self, path: str) -> bool:
        """Tell whether something is known to be wrong at `path` or inside it."""
        told = [violation.field for violation in (*self.unknown, *self.invalid)]
        return any(where == path or where.startswith((f"{path}.", f"{path}[")) for where in told)


def read_json(text: str, shape: MessageShape) -> JsonReading:
    """Read a message from JSON; the caller raises what was found.

    Raises:
        MessageMalformed: The text is no JSON object, or names one member twice.
    """
    data = _load(text)
    if not isinstance(data, dict):
        raise MessageMalformed([Violation(WHOLE, "the arguments must be a JSON object")])
    reading = JsonReading(GetMessageClass(shape.descriptor)())
    _check_object(data, shape, "", reading)
    _convert(data, shape, reading)
    return reading


def format_json(message: Message) -> str:
    """Write a message as compact JSON, with fields at their default written out."""
    data = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _load(text: str) -> Any:
    try:
        return load_strict(text)
    except RecursionError as error:
        raise MessageMalformed([Violation(WHOLE, "the JSON is nested too deep")]) from error
    except ValueError as error:
        raise MessageMalformed([Violation(WHOLE, f"the text is not valid JSON: {error}")]) from error


def _convert(data: dict[str, Any], shape: MessageShape, reading: JsonReading) -> None:
    try:
        json_format.ParseDict(data, reading.message, max_recursion_depth=MAX_DEPTH + 1)
    except (json_format.ParseError, ValueError, TypeError, RecursionError):
        if not reading.found:
            reading.invalid.append(Violation(WHOLE, f"the JSON does not fit {shape.full_name}"))


def _check_object(data: dict[str, Any], shape: MessageShape, path: str, reading: JsonReading) -> None:
    """Check an object's members, and take out those that cannot be read."""
    names = {name: item for item in shape.fields.values() for name in (item.name, item.descriptor.json_name)}
    reading.invalid.extend(_find_clashes(data, names, path))
    reading.depth += 1
    for spelling, value in list(data.items()):
        item = names.get(spelling)
        where = _join(path, item.name if item is not None else spelling[:_MAX_NAME_CHARACTERS])
        before = reading.found
        if before > MAX_VIOLATIONS:
            break
        if item is None:
            reading.unknown.append(Violation(where, _describe_unknown(shape)))
        elif value is not None:
            _check_field(value, item, where, reading)
        if reading.found > before and not _is_object(item, value):
            del data[spelling]
    reading.depth -= 1


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_object(item: FieldShape | None, value: Any) -> bool:
    """Tell whether a value is one message's object, whose bad members were taken out already."""
    return item is not None and item.message is not None and not item.repeated and isinstance(value, dict)


def _describe_unknown(shape: MessageShape) -> str:
    known = ", ".join(list(shape.fields)[:_MAX_NAMES]) or "none"
    return f"is not a field of {shape.full_name} in this version (its fields: {known})"


def _find_clashes(data: dict[str, Any], names: dict[str, FieldShape], path: str) -> Iterator[Violation]:
    """Yield fields given in two spellings, and oneofs of which two members are given."""
    given: dict[str, int] = {}
    members: dict[str, set[str]] = {}
    for item in (names[spelling] for spelling in data if spelling in names):
        given[item.name] = given.get(item.name, 0) + 1
        oneof = item.descriptor.containing_oneof
        if oneof is not None and any(data.get(n) is not None for n in (item.name, item.descriptor.json_name)):
            members.setdefault(oneof.name, set()).add(item.name)
    for name, count in given.items():
        if count > 1:
            yield Violation(_join(path, name), "is given in two spellings: keep one")
    for name, taken in members.items():
        if len(taken) > 1:
            yield Violation(_join(path, name), f"only one of {', '.join(sorted(taken))} can be set")


def _check_field(value: Any, item: FieldShape, path: str, reading: JsonReading) -> None:
    if item.key is not None:
        _check_map(value, item, item.key, path, reading)
    elif not item.repeated:
        _check_value(value, item, path, reading)
    elif not isinstance(value, list):
        reading.invalid.append(Violation(path, "must be a list"))
    else:
        for index, inner in enumerate(value):
            _check_value(inner, item, f"{path}[{index}]", reading)


def _check_map(value: Any, item: FieldShape, key: FieldShape, path: str, reading: JsonReading) -> None:
    if not isinstance(value, dict):
        reading.invalid.append(Violation(path, "must be an object"))
        return
    for name, inner in value.items():
        where = f"{path}[{quote_key(item, name)}]"
        problem = check_json_key(key.kind, name, key.descriptor)
        if problem:
            reading.invalid.append(Violation(where, f"its key {problem}"))
        _check_value(inner, item, where, reading)


def _check_value(value: Any, item: FieldShape, path: str, reading: JsonReading) -> None:
    message = item.message
    if message is None:
        problem = check_json_value(item.kind, value, item.values)
    elif message.full_name in TEXT_PATTERNS:
        problem = check_json_text(value, message.descriptor)
    elif message.full_name in WRAPPER_TYPES:
        inner = message.fields["value"]
        problem = check_json_value(inner.kind, value, inner.values)
    elif not isinstance(value, dict):
        problem = "must be an object"
    elif reading.depth >= MAX_DEPTH:
        problem = f"is nested deeper than {MAX_DEPTH} levels"
    else:
        _check_object(value, message, path, reading)
        return
    if problem:
        reading.invalid.append(Violation(path, problem))
