"""The JSON Schema (draft 2020-12) of a message type, for frameworks that hold JSON.

All that the contract accepts the schema accepts. What a schema cannot say stands beside the place it
belongs to, under `x-toolcrib-not-expressed`, so that a model can read it although no validator enforces it.

There are two forms. The tolerant one takes each value in every spelling that the contract takes. The strict
one is for model APIs that write by a schema: each value has one spelling, a 64-bit integer is a string of
digits, every property is required and null where it may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor

from tools.json_rules import (
    NOT_EXPRESSED,
    Schema,
    apply_rules,
    bound_integer,
    require_value,
    spell_enum,
    tell,
)
from tools.json_values import (
    MAX_FLOAT,
    NUMBER_PATTERN,
    PADDED_BASE64_PATTERN,
    TEXT_PATTERNS,
    WHOLE_BASE64_PATTERN,
    WRAPPER_TYPES,
    find_integer_range,
)
from tools.rules import find_required, list_message_rules, read_rules
from tools.shapes import FieldShape, Kind, MessageShape
from tools.values import MAX_DEPTH

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_AMOUNT_RULE = "an amount is at least 0 and its currency is an ISO 4217 code"


def build_json_schema(
    shape: MessageShape,
    validator: protovalidate.Validator,
    comments: Mapping[str, str],
    *,
    strict: bool = False,
) -> str:
    """Build the schema of a message type, as compact JSON text.

    Args:
        shape: The message type.
        validator: Has compiled the type's rules.
        comments: The comment above each message and field, by full name.
        strict: Build the strict form.
    """
    schema = _Builder(shape, validator, comments, strict=strict).build()
    return json.dumps(_simplify(schema), ensure_ascii=False, separators=(",", ":"))


def _simplify(schema: Any) -> Any:
    """Write `"type": ["string"]` as `"type": "string"`, everywhere."""
    if isinstance(schema, list):
        return [_simplify(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    simple = {key: _simplify(value) for key, value in schema.items()}
    types = simple.get("type")
    if isinstance(types, list) and len(types) == 1:
        simple["type"] = types[0]
    return simple


class _Builder:
    """Collects the definitions of nested types while the root is built."""

    def __init__(
        self,
        root: MessageShape,
        validator: protovalidate.Validator,
        comments: Mapping[str, str],
        *,
        strict: bool,
    ) -> None:
        self._strict = strict
        self._root, self._validator, self._comments = root, validator, comments
        self._defs: dict[str, Schema] = {}
        self._waiting: dict[str, MessageShape] = {}

    def build(self) -> Schema:
        """Build the schema of the root, with the definitions that it refers to."""
        schema: Schema = {"$schema": DIALECT, "title": self._root.full_name, **self._build_object(self._root)}
        while self._waiting:
            name, shape = self._waiting.popitem()
            self._defs[name] = self._build_object(shape)
        if self._defs:
            schema["$defs"] = dict(sorted(self._defs.items()))
        return schema

    def _build_object(self, shape: MessageShape) -> Schema:
        needed = find_required(shape.descriptor, self._validator)
        items = list(shape.fields.values())
        schema = self._describe({"type": "object"}, shape.full_name)
        schema["properties"] = {
            i.descriptor.json_name: self._build_property(i, i.name in needed) for i in items
        }
        if self._strict:
            schema["required"] = list(schema["properties"])
        else:
            self._take_other_names(schema, shape, needed)
        schema["additionalProperties"] = False
        tell(schema, *_describe_oneofs(shape, needed, strict=self._strict))
        tell(schema, *list_message_rules(shape.descriptor))
        if shape.recursive:
            tell(schema, f"at most {MAX_DEPTH} levels")
        return schema

    def _take_other_names(self, schema: Schema, shape: MessageShape, needed: frozenset[str]) -> None:
        """Take a field by its proto name as well."""
        items = shape.fields.values()
        other = {f"^{i.name}$": self._point(shape, i) for i in items if i.name != i.descriptor.json_name}
        if other:
            schema["patternProperties"] = other
        _require(schema, shape, needed)

    def _point(self, shape: MessageShape, item: FieldShape) -> Schema:
        return {"$ref": f"{self._locate(shape)}/properties/{item.descriptor.json_name}"}

    def _locate(self, shape: MessageShape) -> str:
        return "#" if shape.full_name == self._root.full_name else f"#/$defs/{shape.full_name}"

    def _describe(self, schema: Schema, full_name: str) -> Schema:
        comment = self._comments.get(full_name)
        if comment:
            schema["description"] = comment
        return schema

    def _build_property(self, item: FieldShape, required: bool) -> Schema:
        rules = read_rules(item.descriptor)
        if item.key is not None:
            schema = self._build_map(item, item.key, rules)
        elif item.repeated:
            elements = self._build_value(item)
            self._apply(elements, rules.repeated.items if _has(rules, "repeated", "items") else None, item)
            schema = {"type": "array", "items": elements}
        else:
            schema = self._build_value(item)
        self._apply(schema, rules, item)
        if required and not item.presence:
            require_value(schema, item, strict=self._strict)
        if item.roles.amount:
            tell(schema, _AMOUNT_RULE)
        return self._describe(schema if required else _allow_null(schema), item.descriptor.full_name)

    def _apply(self, schema: Schema, rules: Any, item: FieldShape) -> None:
        apply_rules(schema, rules, item, strict=self._strict)

    def _build_map(self, item: FieldShape, key: FieldShape, rules: Any) -> Schema:
        values = self._build_value(item)
        self._apply(values, rules.map.values if _has(rules, "map", "values") else None, item)
        schema: Schema = {"type": "object", "additionalProperties": values}
        names = _build_key(key)
        self._apply(names, rules.map.keys if _has(rules, "map", "keys") else None, key)
        told = names.pop(NOT_EXPRESSED, ())
        if self._strict:  # strict modes know no rule on names
            told = [*told, *(f"{keyword} {value}" for keyword, value in names.items() if keyword != "type")]
        elif names.keys() - {"type"}:
            schema["propertyNames"] = names
        tell(schema, *(f"each key: {line}" for line in told))
        return schema

    def _build_value(self, item: FieldShape) -> Schema:
        message = item.message
        if message is None:
            return _build_scalar(item, strict=self._strict)
        if message.full_name in TEXT_PATTERNS:
            told = [f"a {message.descriptor.name} that exists"]
            return {"type": ["string"], "pattern": TEXT_PATTERNS[message.full_name], NOT_EXPRESSED: told}
        if message.full_name in WRAPPER_TYPES:
            return _build_scalar(message.fields["value"], strict=self._strict)
        if message.full_name != self._root.full_name and message.full_name not in self._defs:
            self._waiting[message.full_name] = message
        return {"$ref": self._locate(message)}


def _build_scalar(item: FieldShape, *, strict: bool) -> Schema:
    if item.kind is Kind.INT:
        return _build_integer(item, strict=strict)
    if item.kind is Kind.FLOAT:
        return _build_float(item, strict=strict)
    if item.kind is Kind.ENUM:
        values = spell_enum(item, lambda _number: True)
        if strict:
            return {"type": ["string"], "enum": [value for value in values if isinstance(value, str)]}
        return {"enum": values}
    if item.kind is Kind.BYTES:
        pattern = PADDED_BASE64_PATTERN if strict else WHOLE_BASE64_PATTERN
        return {"type": ["string"], "contentEncoding": "base64", "pattern": pattern}
    return {"type": ["boolean" if item.kind is Kind.BOOL else "string"]}


def _build_integer(item: FieldShape, *, strict: bool) -> Schema:
    least, greatest = find_integer_range(item.values)
    is_wide = greatest > 2**32
    types = ["string" if is_wide else "integer"] if strict else ["integer", "string"]
    schema: Schema = {"type": types}
    bound_integer(schema, least, greatest)
    return schema


def _build_float(item: FieldShape, *, strict: bool) -> Schema:
    schema: Schema = (
        {"type": ["number"]} if strict else {"type": ["number", "string"], "pattern": NUMBER_PATTERN}
    )
    if item.values.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        schema |= {"minimum": -MAX_FLOAT, "maximum": MAX_FLOAT}
    return schema


def _build_key(key: FieldShape) -> Schema:
    if key.kind is Kind.BOOL:
        return {"enum": ["true", "false"]}
    schema: Schema = {"type": ["string"]}
    if key.kind is Kind.INT:
        bound_integer(schema, *find_integer_range(key.values))
    return schema


def _allow_null(schema: Schema) -> Schema:
    """Accept null, which JSON of protobuf reads as leaving the field out."""
    if "$ref" in schema:
        told = {key: value for key, value in schema.items() if key == NOT_EXPRESSED}
        return {"anyOf": [{"$ref": schema["$ref"]}, {"type": "null"}], **told}
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*types, "null"]
    return schema


def _require(schema: Schema, shape: MessageShape, needed: frozenset[str]) -> None:
    plain: list[str] = []
    choices: list[Schema] = []
    for name in sorted(needed):
        spellings = _spell_names(shape, name)
        if len(spellings) == 1:
            plain.extend(spellings)
        else:
            choices.append({"anyOf": [{"required": [spelling]} for spelling in spellings]})
    if plain:
        schema["required"] = plain
    if choices:
        schema["allOf"] = choices


def _spell_names(shape: MessageShape, name: str) -> list[str]:
    """List every way to give a field, or one of a oneof's fields."""
    if name in shape.fields:
        members = [shape.fields[name].descriptor]
    else:
        members = list(shape.descriptor.oneofs_by_name[name].fields)
    return sorted({spelling for member in members for spelling in (member.json_name, member.name)})


def _describe_oneofs(shape: MessageShape, needed: frozenset[str], *, strict: bool) -> Iterator[str]:
    for oneof in shape.descriptor.oneofs:
        names = [field.json_name for field in oneof.fields]
        if len(names) > 1:
            yield f"only one of {', '.join(names)} can be set"
        if strict and oneof.name in needed:
            yield f"one of {', '.join(names)} must be set"


def _has(rules: Any, kind: str, part: str) -> bool:
    return rules is not None and rules.HasField(kind) and getattr(rules, kind).HasField(part)
