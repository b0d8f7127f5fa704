"""What policies see of a request, and the schema that says so."""

from __future__ import annotations

import json

import cedarpy
import pytest

from tests.tools.protos import load_contract
from tools.contract import Contract

MESSAGES = """
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Money { int64 minor_units = 1; string currency = 2; }
message Tree { string name = 1; repeated Tree children = 2; }
message Loop { Back back = 1; }
message Back { Loop loop = 1; string text = 2; }
message Login { string name = 1; string password = 2 [(toolcrib.v1.field).secret = true]; }
message Request {
  string text = 1;
  bool flag = 2;
  int64 long = 3;
  uint64 natural = 4;
  Color color = 5;
  Money price = 6;
  repeated string tags = 7;
  optional int32 maybe = 8;
  double ratio = 9;
  bytes data = 10;
  map<string, string> labels = 11;
  Tree tree = 12;
  Login login = 13;
  repeated Money prices = 14;
  Loop loop = 15;
  oneof choice { string left = 16; Color right = 17; }
}
"""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(MESSAGES)


def view(contract: Contract, document: dict[str, object]) -> dict[str, object]:
    return contract.policy_view(contract.parse_request_json(json.dumps(document)))


def test_shows_fields_without_presence_even_when_unset(contract: Contract) -> None:
    assert view(contract, {}) == {
        "text": "", "flag": False, "long": 0, "natural": 0, "color": "COLOR_UNSPECIFIED", "tags": [],
        "prices": [],
    }  # fmt: skip


def test_shows_nested_messages_lists_and_enum_names(contract: Contract) -> None:
    document: dict[str, object] = {
        "price": {"currency": "EUR"},
        "prices": [{"minorUnits": 2}],
        "tags": ["a"],
        "right": "COLOR_RED",
    }

    seen = view(contract, document)

    assert seen["price"] == {"minor_units": 0, "currency": "EUR"}
    assert seen["prices"] == [{"minor_units": 2, "currency": ""}]
    assert (seen["tags"], seen["right"]) == (["a"], "COLOR_RED")


def test_shows_a_field_with_presence_only_when_set(contract: Contract) -> None:
    assert "maybe" not in view(contract, {})
    assert view(contract, {"maybe": 0})["maybe"] == 0


def test_hides_what_policies_cannot_compare_and_secrets(contract: Contract) -> None:
    document: dict[str, object] = {
        "ratio": 1.5,
        "data": "YQ==",
        "labels": {"a": "b"},
        "tree": {"name": "x"},
        "login": {"password": "x"},
    }

    seen = view(contract, document)

    assert seen["login"] == {"name": ""}
    assert not {"ratio", "data", "labels", "tree", "loop"} & seen.keys()
    assert contract.policy_hidden == ("ratio", "data", "labels", "tree", "login.password", "loop")


def test_has_a_schema_that_cedar_accepts_and_that_fits_the_view(contract: Contract) -> None:
    context = {"type": "Record", "attributes": {"request": contract.policy_schema()}}
    action = {"appliesTo": {"principalTypes": ["A"], "resourceTypes": ["A"], "context": context}}
    schema = {"": {"entityTypes": {"A": {}}, "actions": {"do": action}}}
    policy = "permit(principal, action, resource) when { context.request.price.minor_units <= 5 };"

    result = cedarpy.validate_policies(policy, json.dumps(schema))

    assert "unsafe" in str(result.errors) or "optional" in str(result.errors)
    guarded = policy.replace("when { ", "when { context.request has price && ")
    assert cedarpy.validate_policies(guarded, json.dumps(schema)).validation_passed


def test_requires_exactly_what_is_always_there(contract: Contract) -> None:
    attributes = contract.policy_schema()["attributes"]
    assert isinstance(attributes, dict)

    required = {name for name, typed in attributes.items() if typed["required"]}

    assert required == view(contract, {}).keys()
