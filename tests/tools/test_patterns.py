"""Patterns said in another dialect: the same texts match, or nothing is said."""

from __future__ import annotations

import jsonschema_rs
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.protos import load_contract
from tools.contract import Contract
from tools.errors import MessageInvalid
from tools.patterns import quote, translate_pattern

PATTERNS = (
    r"^[A-Z]-[0-9]{1,9}$",
    r"^$|^[a-z]+:[A-Za-z0-9]{4,40}$",
    r"^\d+\.\d{2}$",
    r"^\w+@\w+$",
    r"^\s*\S+$",
    r"^.$",
    r"^[^\d_-]+$",
    r"^[\w.-]{2}$",
    r"^a\-b\x41$",
    r"^[[]a]$",
    r"^(?:ab|c)+?$",
    r"^{a}$",
    r"a|b",
    r"^[a-z\]]+$",
    r"^\$\{\}$",
    r"^[^\x{00}-\x{1F}\x{200B}-\x{200F}\x{E0000}-\x{E007F}]+$",
    r"^\x{e9}$",
)
TEXTS = (
    "A-1",
    "",
    "ab:cdef",
    "1.25",
    "a@b",
    " x",
    "\r",
    "\n",
    "é",
    "٣",
    "a-bA",
    "[a]",
    "abc",
    "{a}",
    "b]",
    "${}",
    "_-",
)


@pytest.fixture(scope="module")
def contract() -> Contract:
    fields = "".join(
        f'string p{number} = {number + 1} [(buf.validate.field).string.pattern = "{escape(pattern)}", '
        "(buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];\n"
        for number, pattern in enumerate(PATTERNS)
    )
    return load_contract(f"message Request {{ {fields} }}")


def escape(pattern: str) -> str:
    return pattern.replace("\\", "\\\\").replace('"', '\\"')


def matches_contract(contract: Contract, number: int, text: str) -> bool:
    message = GetMessageClass(contract.request_descriptor)(**{f"p{number}": text})
    try:
        contract.parse_request(message.SerializeToString())
    except MessageInvalid:
        return False
    return True


@pytest.mark.parametrize("number", range(len(PATTERNS)))
def test_matches_the_same_texts_in_both_dialects(contract: Contract, number: int) -> None:
    translated = translate_pattern(PATTERNS[number])
    schema = {"pattern": translated}
    validator = jsonschema_rs.Draft202012Validator(schema, pattern_options=jsonschema_rs.RegexOptions())

    for text in TEXTS[:1] + TEXTS[2:]:
        assert validator.is_valid(text) == matches_contract(contract, number, text), (translated, text)


@pytest.mark.parametrize(
    "pattern", [r"(?i)a", r"\pL", r"\bword\b", r"\Aa\z", r"[[:alpha:]]", r"[a&&b]", r"[^\S]", r"\Qa\E"]
)
def test_says_nothing_where_the_dialects_differ(pattern: str) -> None:
    assert translate_pattern(pattern) is None


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_quotes_a_text_so_that_it_matches_itself(text: str) -> None:
    assert jsonschema_rs.is_valid({"pattern": f"^{quote(text)}$"}, text)
