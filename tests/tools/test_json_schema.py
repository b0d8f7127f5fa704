"""Derived JSON Schemas: valid, and accepting all that the contract accepts."""

# ruff: noqa: E501 - a contract reads better on one line
from __future__ import annotations

import json
from typing import Any, NoReturn

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.protos import load_contract
from tools.contract import Contract
from tools.errors import ContractError

MESSAGES = r"""
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_BLUE = 2; }
message Money { int64 minor_units = 1; string currency = 2; }
message Node {
  string the_name = 1 [(buf.validate.field).string = {min_len: 1, max_len: 4}];
  Node next_one = 2;
}
// What is asked.
message Request {
  option (buf.validate.message).cel = {id: "both", message: "text and number agree", expression: "this.number < 100 || this.text != ''"};
  // Free words.
  string text = 1 [(buf.validate.field).string.pattern = "^\\d{1,3}.\\w*$"];
  int32 number = 2 [(buf.validate.field).int32 = {gte: 0, lt: 120, not_in: [5]}];
  int64 outside = 3 [(buf.validate.field).int64 = {lt: 0, gt: 10}];
  Color color = 4 [(buf.validate.field).enum = {in: [1, 2]}];
  repeated string tags = 5 [(buf.validate.field).repeated = {min_items: 1, max_items: 3, unique: true, items: {string: {prefix: "a."}}}];
  map<string, int32> counts = 6 [(buf.validate.field).map = {max_pairs: 2, keys: {string: {max_len: 2}}, values: {int32: {gt: 0}}}];
  Money price = 7 [(buf.validate.field).required = true, (toolcrib.v1.field).amount = true];
  Node the_node = 8;
  string mail = 9 [(buf.validate.field).string.email = true, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
  double ratio = 10 [(buf.validate.field).double = {gte: 0.5}];
  oneof choice { option (buf.validate.oneof).required = true; string left_side = 11; bool right_side = 12; }
  optional string maybe = 13 [(buf.validate.field).string.in = "x", (buf.validate.field).string.in = "y"];
  bytes data = 14 [(buf.validate.field).bytes.max_len = 3];
  google.protobuf.Timestamp when = 15;
  google.protobuf.Int32Value wrapped = 16 [(buf.validate.field).int32.gt = 3];
  string caseless = 17 [(buf.validate.field).string.pattern = "(?i)^abc$", (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
}
"""

VALUES: dict[str, list[Any]] = {
    "text": ["12-ab", "1\r", "1\n", "x", "", None, 1],
    "number": [0, 5, 119, 120, "7", 7.0, -1, "x", None],
    "outside": [-1, 5, 11, "12", None],
    "color": ["COLOR_RED", 2, 0, "COLOR_UNSPECIFIED", 3, None],
    "tags": [["a.b"], ["a.b", "a.b"], ["b"], [], ["a.1", "a.2", "a.3", "a.4"], None, "a."],
    "counts": [{}, {"a": 1}, {"abc": 1}, {"a": 0}, {"a": "2", "b": 3}, None, []],
    "price": [
        {"minorUnits": 1, "currency": "EUR"},
        {"minor_units": "1", "currency": "EUR"},
        {"currency": "x"},
        None,
    ],
    "theNode": [{"theName": "a", "nextOne": {"the_name": "b"}}, {}, {"theName": "abcde"}, None],
    "the_node": [{"the_name": "a"}],
    "mail": ["a@b.c", "x", "", None],
    "ratio": [0.5, 1, "0.7", 0.4, "0.1", None],
    "leftSide": ["", "a", None],
    "right_side": [True, "true", None],
    "maybe": ["x", "z", "", None],
    "data": ["YQ==", "YWFhYQ==", "!", None],
    "when": ["2027-01-01T00:00:00Z", "x", None],
    "wrapped": [4, "5", 3, None],
    "caseless": ["ABC", "x", None],
    "unknown": [1],
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(MESSAGES)


@pytest.fixture(scope="module")
def schema(contract: Contract) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(contract.request_json_schema)
    return loaded


def refuse_retrieval(uri: str) -> NoReturn:
    raise AssertionError(f"a derived schema refers to {uri}")


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        schema, retriever=refuse_retrieval, pattern_options=jsonschema_rs.RegexOptions()
    )


def accepts(contract: Contract, document: object) -> bool:
    try:
        contract.parse_request_json(json.dumps(document))
    except ContractError:
        return False
    return True


GOOD = {
    "text": "1.a",
    "tags": ["a.b"],
    "price": {"currency": "EUR"},
    "color": 1,
    "leftSide": "",
    "ratio": 1,
    "outside": 11,
}


def test_is_valid_by_its_meta_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@given(
    changes=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
    )
)
@settings(max_examples=300, deadline=None)
def test_accepts_all_that_the_contract_accepts(
    contract: Contract, validator: jsonschema_rs.Draft202012Validator, changes: dict[str, Any]
) -> None:
    document = {**GOOD, **changes}

    assert not accepts(contract, document) or validator.is_valid(document)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES.items() for value in values]
)
def test_accepts_each_value_that_the_contract_accepts(
    contract: Contract, validator: jsonschema_rs.Draft202012Validator, name: str, value: object
) -> None:
    document = {**GOOD, name: value}

    assert not accepts(contract, document) or validator.is_valid(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "x"), ("text", None), ("number", 120), ("number", 5), ("color", 0), ("tags", ["b"]), ("tags", []),
        ("counts", {"abc": 1}), ("price", None), ("theNode", {"theName": "abcde"}), ("ratio", 0.4), ("maybe", "z"),
        ("unknown", 1), ("wrapped", 3),
    ],
)  # fmt: skip
def test_refuses_what_a_schema_can_tell(
    validator: jsonschema_rs.Draft202012Validator, name: str, value: object
) -> None:
    assert validator.is_valid(GOOD)
    assert not validator.is_valid({**GOOD, name: value})


def test_requires_what_an_empty_message_breaks(schema: dict[str, Any]) -> None:
    assert schema["required"] == ["color", "outside", "price", "ratio", "tags", "text"]
    assert {
        "anyOf": [{"required": [n]} for n in ("leftSide", "left_side", "rightSide", "right_side")]
    } in schema["allOf"]


def test_carries_comments_as_descriptions(schema: dict[str, Any]) -> None:
    assert schema["description"] == "What is asked."
    assert schema["properties"]["text"]["description"] == "Free words."


def test_lists_what_it_cannot_say(schema: dict[str, Any]) -> None:
    told = {name: value.get("x-toolcrib-not-expressed") for name, value in schema["properties"].items()}

    assert schema["x-toolcrib-not-expressed"] == [
        "only one of leftSide, rightSide can be set",
        "text and number agree",
    ]
    assert told["outside"] == ["int64: gt 10, lt 0"]
    assert told["mail"] == ["string.email: True, unless it is empty or zero"]
    assert told["data"] == ["bytes.max_len: 3"]
    assert told["caseless"] == ["string.pattern: (?i)^abc$, unless it is empty or zero"]
    assert told["price"] == ["an amount is at least 0 and its currency is an ISO 4217 code"]


def test_refers_to_a_recursive_type_by_name() -> None:
    contract = load_contract("message Request { string name = 1; repeated Request children = 2; }")
    schema = json.loads(contract.request_json_schema)

    assert schema["properties"]["children"]["items"] == {"$ref": "#"}
