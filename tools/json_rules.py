"""The rules of buf.validate said in JSON Schema, as far as it can say them.

Rules:
1. A keyword is written only where it cannot refuse what the contract accepts.
2. What a keyword says in part only is listed as well, in words, under `x-toolcrib-not-expressed`.
3. The strict form uses no keyword that the strict modes of model APIs lack: no `allOf`, `not`, `uniqueItems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tools.digits import match_digits, match_length
from tools.json_values import find_integer_range
from tools.patterns import FORMAT_PATTERNS, quote, translate_pattern
from tools.shapes import FieldShape, Kind

Schema = dict[str, Any]

NOT_EXPRESSED = "x-toolcrib-not-expressed"

_RANGE = "an integer from"
_BOUNDS = ("gt", "gte", "lt", "lte")
_KEYWORDS = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}
_SILENT = ("example", "finite", "defined_only", "items", "keys", "values")


def apply_rules(schema: Schema, rules: Any, item: FieldShape, *, strict: bool = False) -> None:
    """Write a field's rules into the schema of its value.

    Args:
        schema: Changed in place.
        rules: A `buf.validate.FieldRules`, or None.
        item: The field that carries them; for elements and keys, the list or the key.
        strict: Write the strict form.
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
        told += [line for line in _express(schema, name, typed, item, strict=strict)]
    tell(schema, *told)


def tell(schema: Schema, *lines: str) -> None:
    """List what a schema cannot say, once each."""
    told = schema.get(NOT_EXPRESSED, [])
    new = [line for line in dict.fromkeys(lines) if line not in told]
    if new:
        schema[NOT_EXPRESSED] = [*told, *new]


def require_value(schema: Schema, item: FieldShape, *, strict: bool = False) -> None:
    """Say that a field without presence cannot be empty."""
    keyword = "minLength" if item.kind is Kind.STRING and "enum" not in schema else ""
    if item.repeated:
        keyword = "minProperties" if item.is_map else "minItems"
    if keyword == "minProperties" and strict:
        tell(schema, "cannot be empty")
    elif keyword:
        schema[keyword] = max(1, schema.get(keyword, 0))


def bound_integer(schema: Schema, least: int, greatest: int) -> None:
    """Write the range of an integer, for numbers and for digits in a string; replaces a wider one."""
    told = [line for line in schema.pop(NOT_EXPRESSED, ()) if not line.startswith(_RANGE)]
    tell(schema, *told)
    if "integer" in schema["type"]:
        schema["minimum"], schema["maximum"] = least, greatest
    if "string" in schema["type"]:
        exact = match_digits(least, greatest)
        schema["pattern"] = exact or match_length(least, greatest)
        if exact is None and "integer" not in schema["type"]:
            tell(schema, f"{_RANGE} {least} to {greatest}")


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


def _express(schema: Schema, name: str, typed: Any, item: FieldShape, *, strict: bool) -> Iterator[str]:
    """Write what can be said; yield the rest."""
    writers = _WRITERS.get(name, {})
    bounded = any(typed.DESCRIPTOR.fields_by_name.get(bound) for bound in _BOUNDS) and name in _NUMBERS
    if bounded and not _NUMBERS[name](schema, typed):
        yield f"{name}: " + ", ".join(f"{b} {getattr(typed, b)}" for b in _BOUNDS if typed.HasField(b))
    for field, value in typed.ListFields():
        if field.name in _SILENT or (bounded and field.name in _BOUNDS):
            continue
        if value is False and name != "bool":
            continue  # a format that is not asked for
        writer = writers.get(field.name) if not strict or _is_strict(schema, field.name) else None
        if writer is None or not writer(schema, value, item):
            yield f"{name}.{field.name}: {_format(field, value)}"


def _is_strict(schema: Schema, rule: str) -> bool:
    """Tell whether a rule can be said without the keywords that strict modes lack."""
    if rule == "not_in":
        return "enum" in schema  # of an enum, which gets shorter
    return rule not in _TOLERANT_ONLY and not (rule in _PATTERNED and "pattern" in schema)


def _read_bounds(typed: Any) -> tuple[str | None, str | None] | None:
    """Name the lower and the upper bound of an interval; None for rules that mean the outside of one."""
    low = next((b for b in ("gt", "gte") if typed.HasField(b)), None)
    high = next((b for b in ("lt", "lte") if typed.HasField(b)), None)
    if low and high:
        below, above = getattr(typed, low), getattr(typed, high)
        if below > above or (below == above and (low, high) != ("gte", "lte")):
            return None
    return low, high


def _write_integer_bounds(schema: Schema, typed: Any) -> bool:
    bounds = _read_bounds(typed)
    if bounds is None or bounds == (None, None):
        return bounds is not None
    low, high = bounds
    least, greatest = _range_of(typed)
    if low:
        least = max(least, getattr(typed, low) + (low == "gt"))
    if high:
        greatest = min(greatest, getattr(typed, high) - (high == "lt"))
    if least > greatest:
        return False  # nothing fits: no call can be made, and a schema need not say it
    bound_integer(schema, least, greatest)
    return True


def _range_of(typed: Any) -> tuple[int, int]:
    return find_integer_range(typed.DESCRIPTOR.fields_by_name["gt"])


def _write_double_bounds(schema: Schema, typed: Any) -> bool:
    bounds = _read_bounds(typed)
    for bound in bounds or ():
        if bound:
            schema[_KEYWORDS[bound]] = getattr(typed, bound)
    return bounds is not None


def _write_float_bounds(schema: Schema, typed: Any) -> bool:
    """Write bounds that are a little wider: a number is rounded to 32 bits before it is compared."""
    bounds = _read_bounds(typed)
    for bound in bounds or ():
        if bound:
            value = getattr(typed, bound)
            slack = abs(value) * 2.0**-22 + 1e-44
            schema[_KEYWORDS[bound]] = value + (slack if bound.startswith("l") else -slack)
    return bounds == (None, None)


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


def _write_min_bytes(schema: Schema, value: int, _item: FieldShape) -> bool:
    schema["minLength"] = max(-(-value // 4), schema.get("minLength", 0))
    return False


def _write_len_bytes(schema: Schema, value: int, item: FieldShape) -> bool:
    return _write_min_bytes(schema, value, item) | _write_max_bytes(schema, value, item)


def _write_max_base64(schema: Schema, value: int, _item: FieldShape) -> bool:
    schema["maxLength"] = -(-value // 3) * 4
    return False  # three numbers of bytes have one length in base64: said in words as well


def _write_min_base64(schema: Schema, value: int, _item: FieldShape) -> bool:
    schema["minLength"] = -(-value * 4 // 3)  # without padding
    return False


def _write_len_base64(schema: Schema, value: int, item: FieldShape) -> bool:
    return _write_min_base64(schema, value, item) | _write_max_base64(schema, value, item)


def _write_format(name: str) -> _Writer:
    def write(schema: Schema, _value: Any, _item: FieldShape) -> bool:
        return _add_pattern(schema, FORMAT_PATTERNS[name])

    return write


def _add_pattern(schema: Schema, pattern: str) -> bool:
    if "pattern" in schema:
        schema.setdefault("allOf", []).append({"pattern": pattern})
    else:
        schema["pattern"] = pattern
    return True


def _write_pattern(schema: Schema, value: str, _item: FieldShape) -> bool:
    translated = translate_pattern(value)
    return translated is not None and _add_pattern(schema, translated)


def _write_prefix(schema: Schema, value: str, _item: FieldShape) -> bool:
    return _add_pattern(schema, f"^{quote(value)}")


def _write_suffix(schema: Schema, value: str, _item: FieldShape) -> bool:
    return _add_pattern(schema, f"{quote(value)}$")


def _write_contains(schema: Schema, value: str, _item: FieldShape) -> bool:
    return _add_pattern(schema, quote(value))


def _write_not_contains(schema: Schema, value: str, _item: FieldShape) -> bool:
    schema.setdefault("allOf", []).append({"not": {"pattern": quote(value)}})
    return True


def _write_choice(schema: Schema, value: Any, _item: FieldShape) -> bool:
    schema["enum"] = _spell(schema, value)
    return True


def _write_exclusion(schema: Schema, value: Any, _item: FieldShape) -> bool:
    schema.setdefault("allOf", []).append({"not": {"enum": _spell(schema, value)}})
    return True


def _spell(schema: Schema, value: Any) -> list[Any]:
    """List one value or many; integers as numbers and as digits, as the schema has them."""
    values = [value] if isinstance(value, (str, int)) else list(value)
    if not values or not isinstance(values[0], int):
        return values
    numbers = values if "integer" in schema["type"] else []
    return [*numbers, *(str(inner) for inner in values if "string" in schema["type"])]


def _write_enum_choice(schema: Schema, value: Any, item: FieldShape) -> bool:
    wanted = {value} if isinstance(value, int) else set(value)
    return _narrow_enum(schema, item, lambda number: number in wanted)


def _write_enum_exclusion(schema: Schema, value: Any, item: FieldShape) -> bool:
    unwanted = set(value)
    return _narrow_enum(schema, item, lambda number: number not in unwanted)


def _narrow_enum(schema: Schema, item: FieldShape, wanted: Callable[[int], bool]) -> bool:
    """Keep the wanted values, in the spellings that the schema has."""
    found = spell_enum(item, wanted)
    schema["enum"] = [value for value in schema["enum"] if value in found]
    return bool(schema["enum"])


def spell_enum(item: FieldShape, wanted: Callable[[int], bool]) -> list[str | int]:
    """List the names, then the numbers, of the wanted values of an enum field."""
    values = [value for value in item.enum.values if wanted(value.number)]
    return [*(value.name for value in values), *sorted({value.number for value in values})]


_INTEGERS = (
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64",
)  # fmt: skip
_NUMBERS: dict[str, Callable[[Schema, Any], bool]] = {
    **dict.fromkeys(_INTEGERS, _write_integer_bounds),
    "double": _write_double_bounds,
    "float": _write_float_bounds,
}
# What strict modes of model APIs have no keyword for, or not twice in one place.
_TOLERANT_ONLY = frozenset({"not_contains", "unique", "min_pairs", "max_pairs"})
_PATTERNED = frozenset({"pattern", "prefix", "suffix", "contains", *FORMAT_PATTERNS})
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
        "len_bytes": _write_len_bytes,
        "min_bytes": _write_min_bytes,
        "max_bytes": _write_max_bytes,
        "pattern": _write_pattern,
        "prefix": _write_prefix,
        "suffix": _write_suffix,
        "contains": _write_contains,
        "not_contains": _write_not_contains,
        **{name: _write_format(name) for name in FORMAT_PATTERNS},
    },
    "bytes": {"len": _write_len_base64, "min_len": _write_min_base64, "max_len": _write_max_base64},
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
