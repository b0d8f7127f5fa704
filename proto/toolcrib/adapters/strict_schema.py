"""The part of JSON Schema that model APIs take in their strict mode, and what has to be left out for it.

Rules:
1. A keyword that an API would refuse is left out where that only makes the schema accept more: the broker
   checks the contract itself. What stands under `x-toolcrib-not-expressed` moves into the description, for
   the model.
2. A schema that cannot be said in this part (a map, an object with an optional property, `allOf`) has no
   strict form.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_EXPRESSED = "x-toolcrib-not-expressed"

_TAKEN = frozenset({
    "type", "enum", "const", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minItems", "maxItems", "description", "required", "additionalProperties", "$ref",
})  # fmt: skip
_LEFT_OUT = frozenset({
    "$schema", "$comment", "title", "examples", "default", "deprecated", "readOnly", "writeOnly", "format",
    "contentEncoding", "contentMediaType", "minLength", "maxLength", "uniqueItems", "minProperties",
    "maxProperties",
})  # fmt: skip


class NotStrict(Exception):
    """The schema has no strict form."""


def to_strict(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the strict form of a tool's schema; None when there is none."""
    try:
        return _convert(schema)
    except NotStrict:
        return None


def _convert(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise NotStrict
    found = {key: _convert_value(key, value) for key, value in schema.items() if not _is_left_out(key)}
    _check_object(found)
    told = schema.get(NOT_EXPRESSED)
    if told:
        found["description"] = "\n".join([*filter(None, [found.get("description")]), *map(str, told)])
    return found


def _convert_value(key: str, value: Any) -> Any:
    if key in ("properties", "$defs"):
        return {name: _convert(inner) for name, inner in value.items()}
    if key == "items":
        return _convert(value)
    if key == "anyOf":
        return [_convert(inner) for inner in value]
    if key in _TAKEN:
        return value
    raise NotStrict


def _is_left_out(key: str) -> bool:
    return key in _LEFT_OUT or key.startswith("x-")


def _check_object(schema: Mapping[str, Any]) -> None:
    """An object names all its properties, and requires them."""
    types = schema.get("type", ())
    if "object" not in (types if isinstance(types, list) else [types]):
        return
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
        raise NotStrict
