"""The fields of a version's messages as facts to compare: type, rules, roles, what a model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tools.descriptors import find_messages, reparse_options
from tools.registration import Registered

Facts = Mapping[str, str]
"""What is said of one thing, by the name of what it says: "effect" -> "READ"."""
Look = Callable[[str, str, str], str]
"""(name of the fact, old, new) -> why a reviewer has to look; "" for no reason. Absent facts are ""."""

_LOOSER_WHEN_HIGHER = ("max_", "lte", "lt", "max")
_LOOSER_WHEN_LOWER = ("min_", "gte", "gt", "min")
_ALWAYS_LOOSER = ("ignore", "strict", "turned")
MODEL_READS = "a model reads it"
_GUARDS = ("destination", "secret", "amount", "untrusted")


@dataclass(frozen=True, slots=True)
class Difference:
    """One change.

    Attributes:
        where: The tool, the field, or the part of tool.yaml.
        change: What changed, "effect: READ → WRITE".
        look: Why a reviewer has to look; empty where there is no special reason.
    """

    where: str
    change: str
    look: str = ""


def compare_facts(where: str, old: Facts, new: Facts, look: Look) -> Iterator[Difference]:
    """Yield what was added, went, or changed."""
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, ""), new.get(name, "")
        if before != after:
            change = f"{name}: {before or '(nothing)'} → {after or '(nothing)'}"
            yield Difference(where, change, look(name, before, after))


def look_at_field(fact: str, old: str, new: str) -> str:
    """Say why a change of a field needs a look: it lets more through, guards less, or speaks to a model."""
    if fact == "comment":
        return MODEL_READS
    if fact.startswith("role "):
        guard = fact.removeprefix("role ")
        return f"is no {guard} any more" if guard in _GUARDS and not new else "its role changed"
    if fact.startswith("rule "):
        return "constraint loosened" if is_looser(fact.removeprefix("rule "), old, new) else ""
    return "values" if fact == "type" else ""


def is_looser(rule: str, old: str, new: str) -> bool:
    """Tell whether a rule lets more through than before; where that cannot be told, it counts as looser."""
    last = rule.rpartition(".")[2]
    if not new or last in _ALWAYS_LOOSER:
        return True
    if not old:
        return False
    if last.startswith(_LOOSER_WHEN_HIGHER):
        return _is_below(old, new)
    return _is_below(new, old) if last.startswith(_LOOSER_WHEN_LOWER) else True


def _is_below(one: str, other: str) -> bool:
    """Compare two numbers; where they are none (another pattern, a list, NaN) a person has to look."""
    try:
        return Decimal(one) < Decimal(other)
    except InvalidOperation:
        return True


def read_fields(registered: Registered) -> dict[str, Facts]:
    """Collect the facts of every message, field and enum value that a tool reaches, by full name."""
    roots = [
        message
        for _, method in registered.tools.values()
        for message in (method.input_type, method.output_type)
    ]
    messages = {name: message for root in roots for name, message in find_messages(root).items()}
    found: dict[str, Facts] = {}
    for name in sorted(messages):
        if not name.startswith("google.protobuf."):
            _read_message(messages[name], registered, found)
    return found


def _read_message(message: Descriptor, registered: Registered, found: dict[str, Facts]) -> None:
    facts = dict(_read_rules(message))
    for oneof in message.oneofs:
        facts |= {f"{name} of {oneof.name}": text for name, text in _read_rules(oneof)}
    facts |= _read_comment(message.full_name, registered)
    if facts:
        found[message.full_name] = facts
    for field in message.fields:
        found[field.full_name] = _read_field(field, registered)
        if field.enum_type is not None:
            enum = field.enum_type
            found |= {f"{enum.full_name}.{one.name}": {"number": str(one.number)} for one in enum.values}


def _read_rules(element: Any) -> Iterator[tuple[str, str]]:
    """Yield what the options of an element say, as "rule string.max_len" and "role destination"."""
    kinds = {"toolcrib": "role", "buf": "rule"}
    for part, value in reparse_options(element.GetOptions()).ListFields():
        kind = kinds.get(part.full_name.partition(".")[0])
        if kind and isinstance(value, Message):
            yield from ((f"{kind} {name}", text) for name, text in _flatten(value))


def _read_field(field: FieldDescriptor, registered: Registered) -> Facts:
    facts: dict[str, str] = {"type": _name_type(field), "number": str(field.number)}
    facts |= dict(_read_rules(field))
    facts |= dict(_find_turned(facts))
    return facts | _read_comment(field.full_name, registered)


def _find_turned(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield ranges whose end is below their begin: then all passes but what lies between (buf.validate)."""
    for name, low in facts.items():
        kind, _, last = name.rpartition(".")
        for high in (facts.get(f"{kind}.{end}") for end in ("lt", "lte")):
            if last in ("gt", "gte") and high is not None and _is_below(high, low):
                yield f"{kind}.turned", f"all but {high} to {low}"


def _read_comment(name: str, registered: Registered) -> dict[str, str]:
    """Give the comment that stands in the schema which a model gets."""
    comment = registered.comments.get(name, "")
    return {"comment": comment} if comment else {}


def _name_type(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    kind = named.full_name if named else _SCALARS.get(field.type, str(field.type))
    repeated = field.is_repeated
    return f"repeated {kind}" if repeated else kind


_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def _flatten(options: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield an option's parts by their paths, "string.max_len"."""
    for field, value in options.ListFields():
        name = f"{prefix}{field.name}"
        if isinstance(value, Message):
            yield from _flatten(value, f"{name}.")
        elif field.enum_type is not None and isinstance(value, int):
            yield name, field.enum_type.values_by_number[value].name
        elif isinstance(value, bool):
            yield name, str(value).lower()
        elif isinstance(value, str | bytes | int | float):
            yield name, str(value)
        else:
            yield name, ", ".join(" ".join(str(item).split()) for item in value)
