"""JSON requests: one strict reading, every violation at once."""

from __future__ import annotations

import json

import pytest

from tests.tools.protos import load_contract
from tools.contract import Contract
from tools.errors import ContractError, MessageInvalid, MessageMalformed, UnknownFields

MESSAGES = """
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Inner { string the_name = 1 [(buf.validate.field).string.min_len = 2]; Inner next = 2; }
message Request {
  string some_text = 1;
  int64 long = 2;
  int32 short = 3;
  uint32 natural = 4;
  double ratio = 5;
  float small = 6;
  bytes data = 7;
  Color color = 8;
  bool flag = 9;
  Inner inner = 10;
  repeated string list = 11;
  map<string, Inner> by_name = 12;
  map<int32, string> by_number = 13;
  map<bool, string> by_flag = 14;
  oneof choice { string left = 15; string right = 16; }
  google.protobuf.Timestamp when = 17;
  google.protobuf.Duration length = 18;
  google.protobuf.StringValue wrapped = 19;
  google.protobuf.FieldMask mask = 20;
  string pin = 21 [(toolcrib.v1.field).secret = true, (buf.validate.field).string.max_len = 4];
}
"""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(MESSAGES)


def refuse(contract: Contract, text: str) -> ContractError:
    with pytest.raises(ContractError) as caught:
        contract.parse_request_json(text)
    return caught.value


def fields(error: ContractError) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        "null",
        "1",
        '{"long": NaN}',
        '{"ratio": Infinity}',
        '{"long":1,"long":1}',
        "[" * 5000,
    ],
)
def test_refuses_what_is_no_json_object(contract: Contract, text: str) -> None:
    assert isinstance(refuse(contract, text), MessageMalformed)


def test_refuses_deep_json_as_malformed(contract: Contract) -> None:
    assert isinstance(refuse(contract, '{"inner":' * 20_000 + "{}" + "}" * 20_000), MessageMalformed)


def test_refuses_more_than_fifty_levels(contract: Contract) -> None:
    text = '{"inner":' + '{"next":' * 60 + "{}" + "}" * 61

    assert "is nested deeper than 50 levels" in str(refuse(contract, text))


def test_reads_both_spellings_of_a_name(contract: Contract) -> None:
    for text in ('{"someText":"a"}', '{"some_text":"a"}'):
        assert contract.canonical(contract.parse_request_json(text)).hex() == "0a0161"


def test_refuses_two_spellings_of_one_field(contract: Contract) -> None:
    error = refuse(contract, '{"someText":"a","some_text":"a"}')

    assert str(error) == "some_text: is given in two spellings: keep one"


def test_names_an_unknown_field_with_its_place_and_the_known_ones(contract: Contract) -> None:
    error = refuse(contract, '{"inner":{"nmae":"x","theName":"xy"}}')

    assert isinstance(error, UnknownFields)
    assert fields(error) == ["inner.nmae"]
    assert "(its fields: the_name, next)" in error.violations[0].description


BAD: dict[str, list[object]] = {
    "long": ["1_000", "+1", " 1", "1e3", "01", "-0", 1.5, True, "9223372036854775808", 1e300, [], {}],
    "short": [2147483648, -2147483649, "2147483648"],
    "natural": [-1, "-1", 4294967296],
    "ratio": ["NaN", "Infinity", "x", True, 10**400, "1e999", []],
    "small": [1e39, "1e39"],
    "data": ["!!!", "YQ=", "Y", "YQ==\n", 1],
    "color": ["1", "COLOR_BLUE", 2, 1.5, True],
    "flag": ["true", 1, 0],
    "some_text": [1, True, "\ud800", []],
    "inner": [[], "x", 1],
    "list": ["ab", {}, 1],
    "by_name": [[], "x"],
    "when": ["x", "2027-1-1T0:0:0Z", "2027-13-01T00:00:00Z", {}, 1, "2027-01-01T00:00:00"],
    "length": ["1", "1m", 1, "999999999999s"],
    "wrapped": [1, {}],
    "mask": [1, "a b"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_refuses_a_value_of_the_wrong_form(contract: Contract, name: str, value: object) -> None:
    error = refuse(contract, json.dumps({name: value}))

    assert isinstance(error, MessageInvalid)
    assert fields(error) == [name]


GOOD: dict[str, list[object]] = {
    "long": [1, "1", 1.0, 1e3, "-9223372036854775808", None],
    "ratio": [1, "1.5", -2e5, "1E5"],
    "data": ["", "YQ", "YQ==", "-_8", "+/8="],
    "color": ["COLOR_RED", 1, None],
    "when": ["2027-01-01T00:00:00Z", "2027-01-01T00:00:00.5+02:00"],
    "length": ["1.5s", "-3s"],
    "wrapped": ["x", None],
    "list": [[], ["a"], None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_reads_every_form_that_the_mapping_allows(contract: Contract, name: str, value: object) -> None:
    contract.parse_request_json(json.dumps({name: value}))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"list":["a",null,3]}', "list[1]"),
        ('{"byName":{"k":{"theName":1}}}', 'by_name["k"].the_name'),
        ('{"byNumber":{"01":"x"}}', 'by_number["01"]'),
        ('{"byFlag":{"yes":"x"}}', 'by_flag["yes"]'),
        ('{"byNumber":{"1":null}}', 'by_number["1"]'),
        ('{"left":"a","right":"b"}', "choice"),
    ],
)
def test_names_the_place_inside(contract: Contract, text: str, field: str) -> None:
    assert fields(refuse(contract, text))[0] == field


def test_lets_null_stand_for_an_unset_member_of_a_oneof(contract: Contract) -> None:
    message = contract.parse_request_json('{"left":null,"right":"b"}')

    assert contract.policy_view(message)["right"] == "b"


def test_tells_wrong_types_unknown_names_and_broken_rules_at_once(contract: Contract) -> None:
    error = refuse(contract, '{"long":"x","nope":1,"inner":{"theName":"a","next":3}}')

    assert isinstance(error, UnknownFields)
    assert fields(error) == ["nope", "long", "inner.next", "inner.the_name"]


def test_never_repeats_a_secret_in_a_violation(contract: Contract) -> None:
    error = refuse(contract, '{"pin":"hunter2"}')

    assert str(error) == "pin: breaks the rule string.max_len"


def test_cuts_long_names_of_strangers(contract: Contract) -> None:
    error = refuse(contract, json.dumps({"x" * 100_000: 1}))

    assert fields(error) == ["x" * 64]


def test_stops_counting_after_a_hundred_violations(contract: Contract) -> None:
    error = refuse(contract, json.dumps({f"x{number}": 1 for number in range(10_000)}))

    assert len(error.violations) <= 102


def test_writes_results_with_defaults_and_without_spaces() -> None:
    contract = load_contract("message Response { bool done = 1; int64 count = 2; optional string note = 3; }")

    assert contract.result_json(bytes.fromhex("1005")) == '{"count":"5","done":false}'
