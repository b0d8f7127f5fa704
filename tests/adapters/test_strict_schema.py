"""The part of JSON Schema that model APIs take in their strict mode."""

from __future__ import annotations

from typing import Any

import pytest
from agents.strict_schema import ensure_strict_json_schema

from toolcrib.adapters.strict_schema import to_strict

ORDER: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "shop.v1.Order",
    "type": "object",
    "properties": {
        "orderId": {"type": "string", "minLength": 1, "pattern": "^A-"},
        "note": {"type": ["string", "null"], "description": "Free."},
        "next": {"anyOf": [{"$ref": "#/$defs/Order"}, {"type": "null"}]},
    },
    "required": ["orderId", "note", "next"],
    "additionalProperties": False,
    "x-toolcrib-not-expressed": ["note or next"],
    "$defs": {"Order": {"type": "object", "properties": {}, "required": [], "additionalProperties": False}},
}


def test_leaves_out_what_an_api_refuses() -> None:
    strict = to_strict(ORDER)
    assert strict is not None
    assert not {"$schema", "title", "x-toolcrib-not-expressed"} & set(strict)
    assert strict["properties"]["orderId"] == {"type": "string", "pattern": "^A-"}


def test_tells_the_model_what_the_schema_cannot_say() -> None:
    strict = to_strict(ORDER)
    assert strict is not None and strict["description"] == "note or next"


def test_leaves_nothing_for_the_sdk_to_change() -> None:
    strict = to_strict(ORDER)
    assert strict is not None and ensure_strict_json_schema(dict(strict)) == strict


@pytest.mark.parametrize(
    "change",
    [
        {"required": ["orderId"]},
        {"additionalProperties": {"type": "string"}},
        {"additionalProperties": True},
        {"allOf": [{"anyOf": [{"required": ["note"]}]}]},
        {"patternProperties": {"^order_id$": {"type": "string"}}},
        {"oneOf": []},
        {"properties": {**ORDER["properties"], "next": True}},
        {"properties": {**ORDER["properties"], "next": {"type": "object", "additionalProperties": {}}}},
    ],
)
def test_has_no_strict_form_of_what_cannot_be_said_in_one(change: dict[str, Any]) -> None:
    assert to_strict({**ORDER, **change}) is None


def test_keeps_a_propertys_name_that_is_a_keyword() -> None:
    named = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    strict = to_strict({**named, "additionalProperties": False})
    assert strict is not None and list(strict["properties"]) == ["title"]
