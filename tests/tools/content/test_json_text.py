"""JSON: what two parsers read differently is refused, the rest is written in one way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.content.json_text import MAX_CHARACTERS, clean_json
from tools.content.kinds import ContentInvalid, Problem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc\u200b"), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ('{"a":1,"a":2}', Problem.JSON_KEY),
        ('{"a":{"b":1,"b":1}}', Problem.JSON_KEY),
        ('{"a":1,"\\u0061":2}', Problem.JSON_KEY),
        ('{"a":1,"a\\u200b":2}', Problem.JSON_KEY),
        ('{"a":1,"a\u202e":2}', Problem.JSON_KEY),
        ("NaN", Problem.JSON_NUMBER),
        ("[Infinity]", Problem.JSON_NUMBER),
        ("-Infinity", Problem.JSON_NUMBER),
        ("1e999", Problem.JSON_NUMBER),
        ("-1e400", Problem.JSON_NUMBER),
        ("1" * 5_000, Problem.JSON_NUMBER),
        ("18446744073709551616", Problem.JSON_NUMBER),
        ("-18446744073709551616", Problem.JSON_NUMBER),
        ("1." + "0" * 60, Problem.JSON_NUMBER),
        ('"\\ud800"', Problem.JSON_SURROGATE),
        ('{"\\udc00":1}', Problem.JSON_SURROGATE),
        ('"\\udc00\\ud800"', Problem.JSON_SURROGATE),
        ("[" * 65 + "]" * 65, Problem.TOO_DEEP),
        ("[" * 100_000, Problem.TOO_DEEP),
        ('{"a":' * 100_000, Problem.TOO_DEEP),
        ("1 2", Problem.NOT_JSON),
        ("{} x", Problem.NOT_JSON),
        ("\ufeff{}x", Problem.NOT_JSON),
        ("", None),
        (" ", Problem.NOT_JSON),
        ("{'a':1}", Problem.NOT_JSON),
        ("{a:1}", Problem.NOT_JSON),
        ("[1,]", Problem.NOT_JSON),
        ('{"a":1,}', Problem.NOT_JSON),
        ("01", Problem.NOT_JSON),
        ("+1", Problem.NOT_JSON),
        (".5", Problem.NOT_JSON),
        ("0x10", Problem.NOT_JSON),
        ('"a\nb"', Problem.NOT_JSON),
        ("// c\n1", Problem.NOT_JSON),
        ("tru", Problem.NOT_JSON),
        ("[" + "1," * MAX_CHARACTERS, Problem.TOO_LONG),
    ],
    ids=range(37),
)
def test_refuses_what_is_read_in_two_ways(document: str, problem: Problem | None) -> None:
    if problem is None:
        assert clean_json(document).text == ""
        return
    with pytest.raises(ContentInvalid) as caught:
        clean_json(document)

    assert caught.value.problem is problem
    assert str(caught.value) == problem.value


@pytest.mark.parametrize(
    ("document", "written"),
    [
        (' { "b" : 1 , "a" : [ ] } ', '{"b":1,"a":[]}'),
        ("[1.50,1e3,-0,0.1E-2,18446744073709551615]", "[1.50,1e3,-0,0.1E-2,18446744073709551615]"),
        ('"\\u00e9\\n\\/<\\u0041>"', '"é\\n/<A>"'),
        ('{"a\\u200b":"x\\u202ey\\udb40\\udc41"}', '{"a":"xy"}'),
        ("[true,false,null]", "[true,false,null]"),
        ('"\\ud83d\\ude00"', '"\U0001f600"'),
        ("[" * 64 + "]" * 64, "[" * 64 + "]" * 64),
    ],
)
def test_writes_a_value_in_one_way(document: str, written: str) -> None:
    assert clean_json(document).text == written


@given(VALUES)
def test_keeps_the_value_and_changes_nothing_the_second_time(value: object) -> None:
    try:
        text = clean_json(json.dumps(value)).text
    except ContentInvalid as error:
        assert error.problem in (Problem.JSON_KEY, Problem.JSON_SURROGATE)
        return

    assert clean_json(text) == (text, {})
    assert type(json.loads(text)) is type(value)
