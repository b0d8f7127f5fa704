"""A message's values are searched alone and together, and what holds a secret is taken out, nothing else."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from broker.held_values import HoldsSecret, find_across, list_values, redact_message, take_out
from broker.redaction import Redaction
from credentials.lease import Lease, UsernamePassword
from credentials.secret import Secret
from tests.broker.disguises import DISGUISES, percent_all
from tests.tools.protos import load_contract
from tools.contract import Contract

SECRET = "s3cret-word-of-the-call"
MESSAGES = """
message Response {
  string text = 1;
  bytes data = 2;
  repeated string lines = 3;
  map<string, string> notes = 4;
  Inner inner = 5;
  repeated Inner inners = 6;
  map<string, Inner> named = 7;
  int64 number = 8;
  map<int64, string> numbered = 9;
  oneof either { string one = 10; string other = 11; }
  google.protobuf.StringValue wrapped = 12;
  double share = 13;
  repeated bytes chunks = 14;
  repeated int64 numbers = 15;
  string more = 16;
  string last = 17;
}
message Inner { int32 id = 1; string text = 2; map<string, string> notes = 3; Inner inner = 4; }
"""


@cache
def contract() -> Contract:
    return load_contract(MESSAGES)


def make(**fields: Any) -> Any:
    return json_format.ParseDict(fields, GetMessageClass(contract().response_descriptor)())


def make_redaction(secret: str = SECRET) -> Redaction:
    now = datetime.now(UTC)
    return Redaction(
        [Lease("db", "l", "a", "database", "r", UsernamePassword("v", Secret(secret)), now, now)]
    )


def redact(secret: str = SECRET, **fields: Any) -> Any:
    """Redact a message and give what is left of it."""
    message = make(**fields)
    assert redact_message(message, make_redaction(secret)) == {"db"}
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


GONE = "[redacted]"
ALONE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "string": ({"text": SECRET}, {"text": GONE}),
    "bytes": ({"data": encoded(SECRET)}, {"data": encoded(GONE)}),
    "element": ({"lines": ["a", SECRET, "b"]}, {"lines": ["a", GONE, "b"]}),
    "bytes element": ({"chunks": [encoded("a"), encoded(SECRET)]}, {"chunks": [encoded("a"), encoded(GONE)]}),
    "map value": ({"notes": {"a": "b", "c": SECRET}}, {"notes": {"a": "b", "c": GONE}}),
    "map key": ({"notes": {SECRET: "a", "b": "c"}}, {"notes": {GONE: "a", "b": "c"}}),
    "two map keys": (
        {"notes": {SECRET: "a", SECRET[::-1]: "b"}},
        {"notes": {GONE: "a", f"{GONE} 2": "b"}},
    ),
    "key and value": ({"notes": {SECRET: SECRET}}, {"notes": {GONE: GONE}}),
    "map value by number": ({"numbered": {"7": SECRET}}, {"numbered": {"7": GONE}}),
    "nested": ({"inner": {"id": 1, "text": SECRET}}, {"inner": {"id": 1, "text": GONE}}),
    "deep": ({"inner": {"inner": {"text": SECRET}}}, {"inner": {"inner": {"text": GONE}}}),
    "in a list": ({"inners": [{"id": 1}, {"text": SECRET}]}, {"inners": [{"id": 1}, {"text": GONE}]}),
    "in a map": ({"named": {"a": {"text": SECRET}}}, {"named": {"a": {"text": GONE}}}),
    "key of a message": ({"named": {SECRET: {"id": 1}}}, {"named": {GONE: {"id": 1}}}),
    "keys at two depths": (
        {"named": {SECRET: {"notes": {SECRET: SECRET}}}},
        {"named": {GONE: {"notes": {GONE: GONE}}}},
    ),
    "one of": ({"other": SECRET}, {"other": GONE}),
    "wrapped": ({"wrapped": SECRET}, {"wrapped": GONE}),
}


@pytest.mark.parametrize("place", ALONE)
def test_takes_a_secret_out_of_each_place(place: str):
    held, left = ALONE[place]
    assert redact(**held, more="kept") == {**left, "more": "kept"}


@pytest.mark.parametrize("name", DISGUISES)
def test_takes_each_disguise_out_of_text_and_bytes(name: str):
    hidden = DISGUISES[name](SECRET)
    left = redact(text=f"it is {hidden}", data=encoded(hidden), more="kept")
    assert left == {"text": GONE, "data": encoded(GONE), "more": "kept"}


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def list_splits(text: str) -> Iterator[dict[str, Any]]:
    one, two = halves(text)
    yield {"text": one, "more": two}
    yield {"lines": [one, two]}
    yield {"lines": list(text)}
    yield {"notes": {"a": one, "b": two}}
    yield {"notes": {one: two}}
    yield {"inner": {"text": one}, "more": two}
    yield {"inners": [{"id": 1, "text": one}, {"id": 2, "text": two}]}
    yield {"text": one, "number": 77, "more": two}
    yield {"text": one, "data": encoded(two)}
    yield {"numbered": {"1": one, "2": two}}
    yield {"text": f"{one}\n", "more": f" {two}"}


@pytest.mark.parametrize("name", ["raw", "reversed", "base64+0", "hex", "percent, all", "JSON, all"])
def test_takes_all_text_out_when_a_secret_lies_across_fields(name: str):
    for held in list_splits(DISGUISES[name](SECRET)):
        message = make(**held, last="kept?")
        assert redact_message(message, make_redaction()) == {"db"}, held
        assert message.last == GONE
        assert not redact_message(message, make_redaction())


def test_finds_an_escape_that_two_fields_share():
    hidden = percent_all(SECRET)
    assert redact(text=hidden[:16], more=hidden[16:]) == {"text": GONE, "more": GONE}


def test_reads_each_field_by_itself_too():
    left = redact(one="it ends in a \\", text="u0041", lines=["%", SECRET])
    assert left == {"one": "it ends in a \\", "text": "u0041", "lines": ["%", GONE]}


@pytest.mark.parametrize(
    "held",
    [
        {"number": "123456789012345678"},
        {"numbers": ["1", "123456789012345678"]},
        {"share": 123456789012345678.0},
        {"numbered": {"123456789012345678": "a"}},
        {"numbers": ["123456", "789012", "345678"]},
    ],
)
def test_gives_up_where_a_number_holds_a_secret(held: dict[str, Any]):
    secret = "123456789012345678" if "share" not in held else str(int(held["share"]))
    with pytest.raises(HoldsSecret) as error:
        redact_message(make(**held), make_redaction(secret))
    assert error.value.found == {"db"}
    assert secret not in repr(error.value)


def test_takes_out_the_bytes_that_a_key_stands_for():
    raw = secrets.token_bytes(64)
    left = redact(encoded(raw), data=encoded(b"\x30\x82" + raw), text="kept")
    assert left == {"data": encoded(GONE), "text": "kept"}
    assert (
        redact(encoded(raw), chunks=[encoded(raw[:30]), encoded(raw[30:])])["chunks"] == [encoded(GONE)] * 2
    )


def test_leaves_what_holds_no_secret():
    message = make(text="fine", notes={"a": "b"}, number=3, data=encoded(b"\xff\x00"), inner={"id": 1})
    before = message.SerializeToString(deterministic=True)
    assert not redact_message(message, make_redaction())
    assert message.SerializeToString(deterministic=True) == before


def test_searches_a_large_result_in_many_values():
    message = make(lines=[f"line {number} of many" for number in range(50_000)], more=SECRET)
    assert redact_message(message, make_redaction()) == {"db"}
    assert (message.lines[0], message.more) == ("line 0 of many", GONE)


class CountedMap(dict[str, str]):
    """Counts how often it is asked for a key."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)


def test_looks_for_a_new_name_of_very_many_keys_but_once_each():
    message = make(notes={str(number): "a" for number in range(1_000)})
    entries = CountedMap(message.notes)
    values = [value for value in list_values(message) if value.is_key]
    for value in values:
        value.holder = entries
    take_out(values)
    assert len(entries) == 1_000
    assert entries.asked < 2_000


def test_names_a_key_anew_beside_the_new_names_of_others():
    left = redact(notes={f"{GONE} 2": "kept", SECRET: "a", SECRET[::-1]: "b"})
    assert left == {"notes": {f"{GONE} 2": "kept", GONE: "a", f"{GONE} 3": "b"}}


@pytest.mark.parametrize("number", [1e308, -1.7e308, 1.234567890123456e30, 5e-324, 0.1])
def test_writes_no_number_at_greater_length_than_a_secret_can_have(number: float):
    (value,) = list_values(make(share=number))
    assert len(value.text) <= 26


def test_finds_a_secret_in_the_digits_of_a_huge_number():
    with pytest.raises(HoldsSecret):
        redact_message(make(share=1.234567890123456e30), make_redaction("1234567890123456"))


def test_takes_a_list_of_numbers_as_one_value():
    message = make(numbers=list(range(1, 1_001)))
    (value,) = list_values(message)
    assert value.text.startswith("12345678910")
    assert find_across([value], make_redaction("9989991000")) == {"db"}


def test_takes_all_text_out_when_very_many_values_hold_a_secret():
    message = make(lines=[f"{number} {SECRET}" for number in range(5_000)], more="innocent")
    assert redact_message(message, make_redaction()) == {"db"}
    assert {*message.lines, message.more} == {GONE}
