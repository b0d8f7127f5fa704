"""Contract and schema, over ten thousand requests of each sample message, in three spellings.

1. What the contract accepts the schema accepts: in the tolerant form however it is spelled, in the strict
   form in its strict spelling. So what the schema refuses the contract refuses.
2. What both can say agrees: where the schema accepts and the contract refuses, each violation is of a place
   for which the schema lists something that it does not express.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import jsonschema_rs
import pytest

from tests.tools.documents import Documents, Spelling
from tests.tools.protos import load_contract
from tools.catalogue import load_version
from tools.contract import Contract
from tools.errors import ContractError
from tools.json_rules import NOT_EXPRESSED
from tools.source import compile_bundle
from tools.values import WHOLE

BUNDLES = Path(__file__).parent.parent.parent / "tools" / "bundles"
SAMPLES = sorted(folder.name for folder in BUNDLES.iterdir() if (folder / "tool.yaml").exists())
MANY = 10_000
TORTURED = 2_500
"""Of each torture message, which is nobody's; in the long form as many as of the others."""
LONG = 10 if os.environ.get("TOOLCRIB_LONG") == "1" else 1

TORTURE = r"""
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_BLUE = 2; COLOR_GREEN = 7; }
message Money { int64 minor_units = 1; string currency = 2; }
message Node {
  string the_name = 1 [(buf.validate.field).string = {min_len: 1, max_len: 4}];
  Node next_one = 2;
  repeated Node child_nodes = 3 [(buf.validate.field).repeated.max_items = 2];
}
message Numbers {
  int32 small_number = 1 [(buf.validate.field).int32 = {gte: -5, lt: 120}];
  int64 big_number = 2 [(buf.validate.field).int64 = {gt: 0}];
  uint32 natural = 3 [(buf.validate.field).uint32 = {lte: 7, not_in: [3]}];
  uint64 huge = 4 [(buf.validate.field).uint64 = {gte: 0, lte: 500}];
  sint64 listed = 5 [(buf.validate.field).sint64 = {in: [-4, 0, 9007199254740993]}];
  fixed32 fixed = 6 [(buf.validate.field).fixed32.lt = 100];
  sfixed64 outside = 7 [
    (buf.validate.field).sfixed64 = {lt: 0, gt: 10}, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE
  ];
  double ratio = 8 [(buf.validate.field).double = {gte: 0, lt: 1}];
  float rough = 9 [(buf.validate.field).float = {gte: -0.1, lte: 0.1}];
  double any_double = 10;
  float any_float = 11;
  optional int32 maybe = 12 [(buf.validate.field).int32.const = 4];
  int64 plain_long = 13;
  uint64 plain_natural = 14;
  int32 plain_int = 15;
}
message Texts {
  string code = 1 [(buf.validate.field).string.pattern = "^[A-Z]{2}-\\d{1,4}$"];
  string both_ends = 2 [(buf.validate.field).string = {prefix: "a.", suffix: "*z", max_len: 12}];
  string inside = 3 [(buf.validate.field).string = {contains: "@", not_contains: "@@"}];
  string short_text = 4 [(buf.validate.field).string = {min_len: 2, max_len: 3}];
  string exact = 5 [(buf.validate.field).string.len = 3, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
  string sized = 6 [(buf.validate.field).string = {min_bytes: 2, max_bytes: 9}];
  string mail = 7 [(buf.validate.field).string.email = true];
  string id = 8 [(buf.validate.field).string.uuid = true];
  optional string address = 9 [(buf.validate.field).string.ipv4 = true];
  optional string site = 10 [(buf.validate.field).string.uri = true];
  optional string host = 11 [(buf.validate.field).string.hostname = true];
  optional string word = 12 [(buf.validate.field).string = {in: ["x", "yes"]}];
  optional string other = 13 [(buf.validate.field).string = {not_in: ["x", ""]}];
  optional string caseless = 14 [(buf.validate.field).string.pattern = "(?i)^abc$"];
  string free_text = 15;
  optional string ulid = 16 [(buf.validate.field).string.ulid = true];
  optional string short_id = 17 [(buf.validate.field).string.tuuid = true];
  optional string type_name = 18 [(buf.validate.field).string.protobuf_fqn = true];
  string lines = 19 [(buf.validate.field).string.pattern = "^(?:[^\\n]{0,5}\\n?){0,3}$"];
}
message Lists {
  repeated string tags = 1 [(buf.validate.field).repeated = {
    min_items: 1, max_items: 3, unique: true, items: {string: {prefix: "a"}}
  }];
  map<string, int32> counts = 2 [(buf.validate.field).map = {
    min_pairs: 1, max_pairs: 2, keys: {string: {max_len: 2}}, values: {int32: {gt: 0}}
  }];
  map<int64, string> by_number = 3 [(buf.validate.field).map.keys.int64 = {gt: 0, lt: 1000}];
  map<bool, Money> by_flag = 4;
  repeated Color colors = 5 [(buf.validate.field).repeated.items.enum = {in: [1, 2]}];
  repeated bytes parts = 6 [(buf.validate.field).repeated.items.bytes = {min_len: 1, max_len: 4}];
  repeated google.protobuf.Timestamp times = 7 [(buf.validate.field).repeated.max_items = 2];
  repeated uint64 ids = 8 [(buf.validate.field).repeated = {max_items: 3, unique: true}];
  map<string, Node> nodes = 9;
}
message Others {
  bytes data = 1 [(buf.validate.field).bytes = {min_len: 2, max_len: 5}];
  bytes plain = 2;
  bytes magic = 3 [(buf.validate.field).bytes.len = 4];
  bool agreed = 4 [(buf.validate.field).bool.const = true];
  bool flag = 5;
  Color color = 6 [(buf.validate.field).enum = {not_in: [0]}];
  Color any_color = 7;
  Color only_color = 8 [(buf.validate.field).enum.const = 7];
  google.protobuf.Timestamp when = 9 [(buf.validate.field).timestamp.lt_now = true];
  google.protobuf.Duration length = 10 [(buf.validate.field).duration = {gte: {seconds: 0}}];
  google.protobuf.FieldMask mask = 11;
  google.protobuf.Int64Value wrapped_long = 12 [(buf.validate.field).int64 = {gte: 4, lte: 44}];
  google.protobuf.StringValue wrapped_text = 13 [(buf.validate.field).string.min_len = 2];
  google.protobuf.BoolValue wrapped_flag = 14;
  google.protobuf.DoubleValue wrapped_ratio = 15 [(buf.validate.field).double.gt = 0];
  google.protobuf.BytesValue wrapped_bytes = 16 [(buf.validate.field).bytes.max_len = 3];
  oneof choice {
    option (buf.validate.oneof).required = true;
    string left_side = 17; bool right_side = 18; Node third = 19;
  }
  oneof free { int64 free_long = 20 [(buf.validate.field).int64.gt = 5]; string free_text = 21; }
  Money price = 22 [(buf.validate.field).required = true, (toolcrib.v1.field).amount = true];
  string secret = 23 [(toolcrib.v1.field).secret = true, (buf.validate.field).string.max_len = 4];
  google.protobuf.Empty nothing = 24;
}
"""
REQUESTS = {
    "numbers": "message Request { Numbers numbers = 1; repeated Numbers more = 2; }",
    "texts": "message Request { Texts texts = 1; }",
    "lists": "message Request { Lists lists = 1 [(buf.validate.field).required = true]; }",
    "others": "message Request { Others others = 1; Node node = 2; }",
    "message rules": (
        'message Request { option (buf.validate.message).cel = {id: "sum", message: "a is below b",'
        ' expression: "this.a < this.b"}; option (buf.validate.message).oneof = {fields: ["x", "y"]};'
        " int32 a = 1; int32 b = 2; optional int64 x = 3; optional string y = 4; repeated Request again = 5;"
        ' string z = 6 [(buf.validate.field).cel = {id: "z", message: "z has no q",'
        " expression: \"!this.contains('q')\"}]; }"
    ),
}


@cache
def load_samples() -> dict[str, Contract]:
    """Load the contract of every tool of our bundles, and those of the torture messages."""
    found = {f"torture: {name}": load_contract(TORTURE + text) for name, text in REQUESTS.items()}
    for bundle in SAMPLES:
        source = compile_bundle(BUNDLES / bundle)
        version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
        found |= version.contracts
    return found


def refuse_retrieval(uri: str) -> NoReturn:
    raise AssertionError(f"a derived schema refers to {uri}")


@dataclass
class Pair:
    """A contract beside its schema in one form."""

    contract: Contract
    schema: dict[str, Any]

    def __post_init__(self) -> None:
        self.accepts = jsonschema_rs.Draft202012Validator(
            self.schema, retriever=refuse_retrieval, pattern_options=jsonschema_rs.RegexOptions()
        ).is_valid

    def find_violations(self, document: dict[str, Any]) -> list[str]:
        """List the places where the contract finds something wrong."""
        try:
            self.contract.parse_request_json(json.dumps(document))
        except ContractError as error:
            return [violation.field for violation in error.violations]
        return []

    def list_told(self, path: str) -> Iterator[str]:
        """List what the schema does not express of a place, from the root down to it."""
        place = self.schema
        yield from place.get(NOT_EXPRESSED, ())
        for step in re.findall(r'\["[^"]*"\]|\[[^\]]*\]|[^.\[]+', "" if path == WHOLE else path):
            place = self._enter(place, step)
            yield from place.get(NOT_EXPRESSED, ())
            place = self._resolve(place)
            yield from place.get(NOT_EXPRESSED, ())

    def _enter(self, place: dict[str, Any], step: str) -> dict[str, Any]:
        if step.startswith("["):
            return dict(place.get("items") or place.get("additionalProperties") or {})
        for name, inner in place.get("properties", {}).items():
            if re.sub("[A-Z]", lambda match: "_" + match[0].lower(), name) == step or name == step:
                return dict(inner)
        return {}

    def _resolve(self, place: dict[str, Any]) -> dict[str, Any]:
        reference = place.get("$ref") or next((p["$ref"] for p in place.get("anyOf", ()) if "$ref" in p), "")
        if not reference:
            return place
        return self.schema if reference == "#" else dict(self.schema["$defs"][reference.rpartition("/")[2]])


def make_pair(contract: Contract, spelling: Spelling) -> Pair:
    strict = spelling is Spelling.STRICT
    text = contract.strict_request_json_schema if strict else contract.request_json_schema
    return Pair(contract, json.loads(text))


NAMES = list(load_samples())


@dataclass
class Count:
    """How many documents a contract accepted and refused."""

    accepted: int = 0
    refused: int = 0


def compare(pair: Pair, documents: Documents, many: int, spelling: Spelling) -> Count:
    """Compare contract and schema over many documents; fails at the first that they disagree on."""
    count = Count()
    for _ in range(many):
        document = documents.make(pair.contract._request)
        wrong, accepts = pair.find_violations(document), pair.accepts(document)
        count.accepted += not wrong
        count.refused += bool(wrong)
        assert accepts or wrong, f"the {spelling.value} schema refuses {document}"
        if accepts and wrong and spelling is not Spelling.ANY:
            silent = [path for path in wrong if not any(pair.list_told(path))]
            assert not silent, f"the {spelling.value} schema says nothing of {silent} in {document}"
    return count


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_contract(name: str) -> None:
    contract = load_samples()[name]
    for spelling, share in ((Spelling.ANY, 0.4), (Spelling.PLAIN, 0.2), (Spelling.STRICT, 0.4)):
        most = MANY if LONG > 1 or not name.startswith("torture") else TORTURED
        many = int(most * share * LONG)
        count = compare(make_pair(contract, spelling), Documents(len(name), spelling), many, spelling)
        assert min(count.accepted, count.refused) > many / 50, (
            "all was right, or all wrong: nothing was shown"
        )


@pytest.mark.parametrize("spelling", [Spelling.PLAIN, Spelling.STRICT])
@pytest.mark.parametrize(
    ("name", "before", "after", "told"),
    [
        ("numbers", '"maximum":119', '"maximum":118', "refuses"),
        ("numbers", '"maximum":119', '"maximum":120', "says nothing"),
        ("texts", '"maxLength":3', '"maxLength":2', "refuses"),
        ("texts", '"maxLength":3', '"maxLength":4', "says nothing"),
        ("message rules", "x-toolcrib-not-expressed", "x-other", "says nothing"),
    ],
)
def test_finds_a_schema_that_says_something_else(
    name: str, before: str, after: str, told: str, spelling: Spelling
) -> None:
    pair = make_pair(load_samples()[f"torture: {name}"], spelling)
    compare(pair, Documents(1, spelling), 600, spelling)
    text = json.dumps(pair.schema, separators=(",", ":"))
    assert before in text
    other = Pair(pair.contract, json.loads(text.replace(before, after)))
    with pytest.raises(AssertionError, match=told):
        compare(other, Documents(1, spelling), 3_000, spelling)


@pytest.mark.parametrize("name", NAMES)
def test_agrees_in_the_reference_implementation_too(name: str) -> None:
    contract = load_samples()[name]
    for spelling in Spelling:
        pair, documents = make_pair(contract, spelling), Documents(7, spelling)
        jsonschema.Draft202012Validator.check_schema(pair.schema)
        check = jsonschema.Draft202012Validator(pair.schema)
        for _ in range(40):
            document = documents.make(contract._request)
            assert check.is_valid(document) or pair.find_violations(document)


STRICT_KEYWORDS = {
    "$schema", "$defs", "$ref", "title", "description", "type", "enum", "properties", "required", "items",
    "additionalProperties", "anyOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern",
    "minLength", "maxLength", "minItems", "maxItems", "contentEncoding", NOT_EXPRESSED,
}  # fmt: skip


def walk_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for keyword in ("properties", "$defs"):
        for inner in schema.get(keyword, {}).values():
            yield from walk_schemas(inner)
    for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
        if isinstance(inner, dict):
            yield from walk_schemas(inner)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_strict_form_to_what_strict_modes_take(name: str) -> None:
    schema = json.loads(load_samples()[name].strict_request_json_schema)
    for place in walk_schemas(schema):
        assert place.keys() <= STRICT_KEYWORDS
        if "properties" in place:
            assert place["required"] == list(place["properties"])
            assert place["additionalProperties"] is False


def test_writes_64_bit_integers_as_strings_in_the_strict_form() -> None:
    numbers = json.loads(load_samples()["torture: numbers"].strict_request_json_schema)["$defs"]
    properties = numbers["test.v1.Numbers"]["properties"]
    small = properties["smallNumber"]
    assert properties["huge"]["type"] == ["string", "null"]
    assert properties["huge"]["pattern"] == "^([0-9]|[1-9][0-9]|[1-4][0-9]{2}|500)$"
    assert properties["bigNumber"]["type"] == "string"
    assert properties["bigNumber"][NOT_EXPRESSED] == ["an integer from 1 to 9223372036854775807"]
    assert NOT_EXPRESSED not in properties["huge"]
    assert (small["type"], small["maximum"]) == (["integer", "null"], 119)
