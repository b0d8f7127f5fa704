"""The rules of buf.validate said in JSON Schema, as far as it can say them.

Rule: a keyword is written only where it cannot refuse what the contract accepts. The rest is listed, in
words, under `x-toolcrib-not-expressed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tools.patterns import quote, translate_pattern
from tools.shapes import FieldShape, Kind

Schema = dict[str, Any]

NOT_EXPRESSED = "x-toolcrib-not-expressed"

_BOUNDS = ("gt", "gte", "lt", "lte")
_SILENT = ("example", "finite", "defined_only", "items", "keys", "values")


def apply_rules(schema: Schema, rules: Any, item: FieldShape) -> None:
    """Write a field's rules into the schema of its value.

    Args:
        schema: Changed in place.
        rules: A `buf.validate.FieldRules`, or None.
        item: The field that carries them; for elements and keys, the list or the key.
    """
    if rules is None or rules.ignore == _ignore(rules, "IGNORE_ALWAYS"):
        return
    told: list[str] = [rule.message or rule.id or rule.expression for rule in rules.cel]
    told += list(rules.cel_expression)
    name = rules.WhichOneof("type")
    typed = getattr(rules, name) if name else None
    if typed is not None and rules.ignore == _ignore(rules, "IGNORE_IF_ZERO_VALUE"):
        told += [f"{line}, unless it is empty or zero" for line in _describe(name, typed)]
    elif typed is not None:
        told += [line for line in _express(schema, name, typed, item)]
    if told:
        schema[NOT_EXPRESSED] = [*schema.get(NOT_EXPRESSED, ()), *told]


def require_value(schema: Schema, item: FieldShape) -> None:
    """Say that a field without presence cannot be empty."""
    keyword = "minLength" if item.kind is Kind.STRING else ""
    if item.repeated:
        keyword = "minProperties" if item.is_map else "minItems"
    if keyword:
        schema[keyword] = max(1, schema.get(keyword, 0))


def _ignore(rules: Any, name: str) -> int:
    field = rules.DESCRIPTOR.fields_by_name["ignore"]
    return int(field.enum_type.values_by_name[name].number)


def _describe(name: str, typed: Any) -> Iterator[str]:
    for field, value in typed.ListFields():
        if field.name not in _SILENT:
            yield f"{name}.{field.name}: {_format(field, value)}"


def _format(field: FieldDescriptor, value: Any) -> str:
    if field.is_repeated:
        return ", ".join(str(inner).strip() for inner in value)
    return " ".join(str(value).split("\n")).strip()


def _express(schema: Schema, name: str, typed: Any, item: FieldShape) -> Iterator[str]:
    """Write what can be said; yield the rest."""
    writers = _WRITERS.get(name, {})
    bounded = name in _INTEGERS or name == "double"
    if bounded and not _write_bounds(schema, typed):
        yield f"{name}: " + ", ".join(f"{b} {getattr(typed, b)}" for b in _BOUNDS if typed.HasField(b))
    for field, value in typed.ListFields():
        if field.name in _SILENT or (bounded and field.name in _BOUNDS):
            continue
        writer = writers.get(field.name)
        if writer is None or not writer(schema, value, item):
            yield f"{name}.{field.name}: {_format(field, value)}"


def _write_bounds(schema: Schema, typed: Any) -> bool:
    """Write an interval; False for rules that mean the outside of one."""
    low = next((b for b in ("gt", "gte") if typed.HasField(b)), None)
    high = next((b for b in ("lt", "lte") if typed.HasField(b)), None)
    if low and high and getattr(typed, low) >= getattr(typed, high) and (low, high) != ("gte", "lte"):
        return False
    if (low, high) == ("gte", "lte") and typed.gte > typed.lte:
        return False
    if low:
        schema["minimum" if low == "gte" else "exclusiveMinimum"] = getattr(typed, low)
    if high:
        schema["maximum" if high == "lte" else "exclusiveMaximum"] = getattr(typed, high)
    return True


def _write(keyword: str) -> Callable[[Schema, Any, FieldShape], bool]:
    def write(schema: Schema, value: Any, _item: FieldShape) -> bool:
        schema[keyword] = value
        return True

    return write


def _write_length(schema: Schema, value: int, _item: FieldShape) -> bool:
    schema["minLength"] = schema["maxLength"] = value
    return True


def _write_max_bytes(schema: Schema, value: int, _item: FieldShape) -> bool:
    schema["maxLength"] = min(value, schema.get("maxLength", value))
    return False  # a character may take four bytes: said in words as well


def _add_pattern(schema: Schema, pattern: str) -> None:
    if "pattern" in schema:
        schema.setdefault("allOf", []).append({"pattern": pattern})
    else:
        schema["pattern"] = pattern


def _write_pattern(schema: Schema, value: str, _item: FieldShape) -> bool:
    translated = translate_pattern(value)
    if translated is not None:
        _add_pattern(schema, translated)
    return translated is not None


def _write_prefix(schema: Schema, value: str, _item: FieldShape) -> bool:
    _add_pattern(schema, f"^{quote(value)}")
    return True


def _write_suffix(schema: Schema, value: str, _item: FieldShape) -> bool:
    _add_pattern(schema, f"{quote(value)}$")
    return True


def _write_contains(schema: Schema, value: str, _item: FieldShape) -> bool:
    _add_pattern(schema, quote(value))
    return True


def _write_not_contains(schema: Schema, value: str, _item: FieldShape) -> bool:
    schema.setdefault("allOf", []).append({"not": {"pattern": quote(value)}})
    return True


def _write_choice(schema: Schema, value: Any, _item: FieldShape) -> bool:
    schema["enum"] = _spell(value)
    return True


def _write_exclusion(schema: Schema, value: Any, _item: FieldShape) -> bool:
    schema.setdefault("allOf", []).append({"not": {"enum": _spell(value)}})
    return True


def _spell(value: Any) -> list[Any]:
    """List one value or many; integers as numbers and as digits."""
    values = [value] if isinstance(value, (str, int)) else list(value)
    if values and isinstance(values[0], int) and not isinstance(values[0], bool):
        return [*values, *(str(inner) for inner in values)]
    return values


def _write_enum_choice(schema: Schema, value: Any, item: FieldShape) -> bool:
    wanted = {value} if isinstance(value, int) else set(value)
    schema["enum"] = spell_enum(item, lambda number: number in wanted)
    return True


def _write_enum_exclusion(schema: Schema, value: Any, item: FieldShape) -> bool:
    schema["enum"] = spell_enum(item, lambda number: number not in set(value))
    return True


def spell_enum(item: FieldShape, wanted: Callable[[int], bool]) -> list[str | int]:
    """List the names, then the numbers, of the wanted values of an enum field."""
    values = [value for value in item.enum.values if wanted(value.number)]
    return [*(value.name for value in values), *sorted({value.number for value in values})]


_INTEGERS = (
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64",
)  # fmt: skip
_Writer = Callable[[Schema, Any, FieldShape], bool]
_WRITERS: dict[str, dict[str, _Writer]] = {
    **{name: {"const": _write_choice, "in": _write_choice, "not_in": _write_exclusion} for name in _INTEGERS},
    "string": {
        "const": _write_choice,
        "in": _write_choice,
        "not_in": _write_exclusion,
        "len": _write_length,
        "min_len": _write("minLength"),
        "max_len": _write("maxLength"),
        "max_bytes": _write_max_bytes,
        "pattern": _write_pattern,
        "prefix": _write_prefix,
        "suffix": _write_suffix,
        "contains": _write_contains,
        "not_contains": _write_not_contains,
    },
    "bool": {"const": lambda schema, value, _item: _write("enum")(schema, [value], _item)},
    "enum": {"const": _write_enum_choice, "in": _write_enum_choice, "not_in": _write_enum_exclusion},
    "repeated": {
        "min_items": _write("minItems"),
        "max_items": _write("maxItems"),
        "unique": _write("uniqueItems"),
    },
    "map": {"min_pairs": _write("minProperties"), "max_pairs": _write("maxProperties")},
}
"""For each type of rule the writer of each of its fields; what has none is said in words."""
