"""What every message must satisfy, and the canonical bytes, held by golden vectors."""

from __future__ import annotations

import struct

import pytest

from tests.tools.protos import load_contract
from tools.contract import Contract
from tools.errors import MessageInvalid, MessageMalformed, UnknownFields
from tools.values import Amount, Destination

MESSAGES = """
message Money { int64 minor_units = 1; string currency = 2; }
message Party { string address = 1 [(toolcrib.v1.field).destination = true]; }
message Tree { repeated Tree children = 1; }
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Request {
  string text = 1;
  repeated int32 numbers = 2;
  optional string maybe = 3;
  Money price = 4 [(toolcrib.v1.field).amount = true];
  repeated Party to = 5;
  map<string, Money> fees = 6;
  Color color = 7;
  double ratio = 8;
  uint64 big = 9;
  google.protobuf.Timestamp when = 10;
  Tree tree = 11;
  map<string, Color> colors = 12;
  repeated string cc = 13 [(toolcrib.v1.field).destination = true];
  google.protobuf.Duration length = 14;
}
"""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(MESSAGES)


def canonical(contract: Contract, raw: str) -> str:
    return contract.canonical(contract.parse_request(bytes.fromhex(raw))).hex(" ")


GOLDEN = {
    "empty": ("", ""),
    "text": ("0a 01 61", "0a 01 61"),
    "default without presence is not encoded": ("0a 00", ""),
    "default with presence is encoded": ("1a 00", "1a 00"),
    "last of a doubled scalar wins": ("0a 01 61 0a 01 62", "0a 01 62"),
    "doubled messages are merged": ("22 02 08 01 22 05 12 03 45 55 52", "22 07 08 01 12 03 45 55 52"),
    "unpacked becomes packed": ("10 01 10 02 10 03", "12 03 01 02 03"),
    "two packed runs become one": ("12 02 01 02 12 01 03", "12 03 01 02 03"),
    "packed and unpacked mix": ("12 01 01 10 02", "12 02 01 02"),
    "fields are ordered": ("1a 01 62 0a 01 61", "0a 01 61 1a 01 62"),
    "long varint becomes short": ("10 81 80 00", "12 01 01"),
    "negative number": ("10 ff ff ff ff ff ff ff ff ff 01", "12 0a ff ff ff ff ff ff ff ff ff 01"),
    "map is ordered by key": (
        "62 05 0a 01 62 10 01 62 05 0a 01 61 10 01",
        "62 05 0a 01 61 10 01 62 05 0a 01 62 10 01",
    ),
    "last of a doubled map key wins": ("62 05 0a 01 61 10 01 62 03 0a 01 61", "62 05 0a 01 61 10 00"),
    "map entry in another order": ("62 05 10 01 0a 01 61", "62 05 0a 01 61 10 01"),
}


@pytest.mark.parametrize(("raw", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_encodes_canonically(contract: Contract, raw: str, golden: str) -> None:
    assert canonical(contract, raw) == golden
    assert canonical(contract, golden) == golden


def test_encodes_json_and_bytes_alike(contract: Contract) -> None:
    from_json = contract.parse_request_json('{"numbers":["1",2.0,3],"text":"a","fees":{}}')

    assert contract.canonical(from_json) == contract.canonical(
        contract.parse_request(bytes.fromhex("0a0161 1001 1002 1003"))
    )


UNKNOWN = {
    "(message)": "f8 06 01",
    "price": "22 08 12 03 45 55 52 f8 06 01",
    "to[0]": "2a 03 f8 06 01",
    'fees["a"]': "32 0d 0a 01 61 12 08 12 03 45 55 52 f8 06 01",
}


@pytest.mark.parametrize(("where", "raw"), UNKNOWN.items())
def test_refuses_unknown_fields(contract: Contract, where: str, raw: str) -> None:
    with pytest.raises(UnknownFields) as caught:
        contract.parse_request(bytes.fromhex(raw))

    assert caught.value.violations[0].field == where
    assert "111" in caught.value.violations[0].description


@pytest.mark.parametrize(("raw", "where"), [("384d", "color"), ("62050a0161104d", 'colors["a"]')])
def test_refuses_unknown_enum_numbers(contract: Contract, raw: str, where: str) -> None:
    with pytest.raises(UnknownFields) as caught:
        contract.parse_request(bytes.fromhex(raw))

    assert [v.field for v in caught.value.violations] == [where]


@pytest.mark.parametrize("raw", ["0a05", "0a01ff", "ffffffffff", "0b", "41"])
def test_refuses_bytes_that_are_no_message(contract: Contract, raw: str) -> None:
    with pytest.raises(MessageMalformed):
        contract.parse_request(bytes.fromhex(raw))


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), float("-inf")])
def test_refuses_numbers_that_are_not_finite(contract: Contract, ratio: float) -> None:
    with pytest.raises(MessageInvalid, match="ratio: must be a finite number"):
        contract.parse_request(b"\x41" + struct.pack("<d", ratio))


def test_refuses_unsigned_numbers_that_policies_cannot_compare(contract: Contract) -> None:
    with pytest.raises(MessageInvalid, match="big: must be at most 9223372036854775807"):
        contract.parse_request(bytes.fromhex("4880808080808080808001"))


@pytest.mark.parametrize(
    "raw", ["52 0b 10 ff ff ff ff ff ff ff ff ff 01", "72 0d 08 01 10 ff ff ff ff ff ff ff ff ff 01"]
)
def test_refuses_times_out_of_range(contract: Contract, raw: str) -> None:
    with pytest.raises(MessageInvalid, match="is out of the range that its type allows"):
        contract.parse_request(bytes.fromhex(raw))


def nest(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = b"\x0a" + _varint(len(inner)) + inner
    return b"\x5a" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def test_accepts_fifty_levels_and_no_more(contract: Contract) -> None:
    contract.parse_request(nest(49))

    with pytest.raises(MessageInvalid, match="is nested deeper than 50 levels"):
        contract.parse_request(nest(50))


def test_refuses_what_protobuf_itself_cannot_decode(contract: Contract) -> None:
    with pytest.raises(MessageMalformed):
        contract.parse_request(nest(120))


def test_refuses_a_negative_amount_and_a_currency_that_is_none(contract: Contract) -> None:
    with pytest.raises(MessageInvalid) as caught:
        contract.parse_request_json('{"price":{"minorUnits":-1,"currency":"eur"}}')

    assert [v.field for v in caught.value.violations] == ["price.minor_units", "price.currency"]


def test_collects_amounts(contract: Contract) -> None:
    message = contract.parse_request_json('{"price":{"minorUnits":"5","currency":"EUR"}}')

    assert contract.amounts(message) == (Amount("price", 5, "EUR"),)


def test_collects_nested_and_repeated_destinations_that_are_not_empty(contract: Contract) -> None:
    message = contract.parse_request_json('{"to":[{"address":"a"},{},{"address":"b"}],"cc":["c",""]}')

    assert contract.destinations(message) == (
        Destination("to[0].address", "a"),
        Destination("to[2].address", "b"),
        Destination("cc[0]", "c"),
    )


def test_tells_a_hundred_violations_and_how_many_more(contract: Contract) -> None:
    unknown = b"".join(bytes([0xF8, 0x06 + number % 2, 1]) for number in range(150))

    with pytest.raises(UnknownFields) as caught:
        contract.parse_request(unknown)

    assert len(caught.value.violations) == 101
    assert caught.value.violations[-1].description == "50 more violations are left out"
