"""Untrusted text: what cannot be seen is removed and reported, the rest stays byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.protos import load_contract
from tools.content.text import clean_text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "if a<b & c>d",
        "Tom <tom@x.org>",
        "line\n\ttab",
        "naïve €5 日本語 👍",
        "&amp; <!-- x -->",
        "e\u0301",
        "a\u00a0b",
    ],
)
def test_keeps_what_people_see(text: str) -> None:
    assert clean_text(text) == (text, {})


@pytest.mark.parametrize(
    ("hidden", "kind"),
    [
        ("\x00", "control"), ("\x1b", "control"), ("\x7f", "control"), ("\x85", "control"), ("\r", "control"),
        ("\u2028", "control"), ("\u202e", "bidirectional"), ("\u2066", "bidirectional"),
        ("\u200f", "bidirectional"), ("\u200b", "invisible"), ("\u200d", "invisible"),
        ("\ufeff", "invisible"), ("\u00ad", "invisible"),
        ("\U000e0041", "tag"), ("\U000e007f", "tag"), ("\ufe0f", "invisible"), ("\U000e0101", "invisible"),
        ("\u3164", "invisible"), ("\u2060", "invisible"), ("\u180e", "invisible"),
    ],
)  # fmt: skip
def test_removes_what_people_do_not_see(hidden: str, kind: str) -> None:
    assert clean_text(f"a{hidden}b{hidden}") == ("ab", {kind: 2})


@given(st.text())
def test_changes_nothing_the_second_time(text: str) -> None:
    cleaned, _ = clean_text(text)

    assert clean_text(cleaned) == (cleaned, {})


MESSAGES = """
message Note { string body = 1 [(toolcrib.v1.field) = {untrusted: true, content: TEXT}]; string title = 2; }
message Response {
  Note note = 1;
  repeated Note notes = 2;
  map<string, Note> by_name = 3;
  repeated string lines = 4 [(toolcrib.v1.field).untrusted = true];
}
"""


def test_cleans_marked_fields_wherever_they_are_and_reports_each() -> None:
    contract = load_contract(
        MESSAGES.replace("Response", "Request") + "message Response { Request inner = 1; }"
    )
    dirty = "a\u202eb\U000e0041"
    document = {
        "note": {"body": dirty, "title": dirty},
        "notes": [{}, {"body": dirty}],
        "byName": {"k": {"body": dirty}},
    }
    request = contract.parse_request_json(json.dumps({**document, "lines": ["x", dirty]}))
    result = contract.parse_result(b"\x0a" + bytes([request.ByteSize()]) + contract.canonical(request))

    cleaned, report = contract.sanitize_result(result)

    inner = json.loads(contract.result_json(contract.canonical(cleaned)))["inner"]
    assert (inner["note"], inner["lines"]) == ({"body": "ab", "title": dirty}, ["x", "ab"])
    assert [line.partition(":")[0] for line in report] == [
        "inner.note.body", "inner.notes[].body", "inner.by_name[].body", "inner.lines[]",
    ]  # fmt: skip
    assert report[0].endswith(": 1 bidirectional, 1 tag")


def test_leaves_the_checked_result_as_it_was() -> None:
    contract = load_contract(MESSAGES)
    result = contract.parse_result(b"\x22\x01\x01")

    cleaned, report = contract.sanitize_result(result)

    assert contract.canonical(result) == b"\x22\x01\x01"
    assert (contract.canonical(cleaned), report) == (b"\x22\x00", ("lines[]: 1 control",))


def test_tells_whether_a_result_has_untrusted_fields() -> None:
    assert load_contract(MESSAGES).untrusted
    assert not load_contract("message Response { string text = 1; }").untrusted
