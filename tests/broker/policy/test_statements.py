"""Splitting a Cedar file: lines are right, and what the engine cannot stand never reaches it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.statements import MAX_BRACKET_DEPTH, MAX_CHAINED, split_statements

PLAIN = "permit (principal, action, resource);"


def wrap(condition: str) -> str:
    return f"forbid (principal, action, resource) when {{ {condition} }};"


def test_finds_each_policy_at_its_line() -> None:
    statements, violations = split_statements("a.cedar", f"// first\n{PLAIN}\n\n// second\n{PLAIN}\n")
    assert ([s.place for s in statements], violations) == (["a.cedar:2", "a.cedar:5"], [])


def test_does_not_end_a_policy_inside_a_string_or_a_comment() -> None:
    text = wrap('"a;b // c \\" ;" == "x" // ; "')
    statements, violations = split_statements("a.cedar", text.replace(" };", "\n};"))
    assert (len(statements), violations) == (1, [])


def test_keeps_the_comments_above_out_of_the_text() -> None:
    statements, _ = split_statements("a.cedar", f"// why; because\n{PLAIN}")
    assert statements[0].text == PLAIN


def test_finds_nothing_in_an_empty_file() -> None:
    assert split_statements("a.cedar", "  // nothing\n") == ([], [])


def test_refuses_a_policy_without_its_end() -> None:
    _, (violation,) = split_statements("a.cedar", f"{PLAIN}\n\nforbid (principal, action, resource)")
    assert (violation.field, 'add the ";"' in violation.description) == ("a.cedar:3", True)


def test_refuses_a_string_that_is_not_closed() -> None:
    _, (violation,) = split_statements("a.cedar", '\n@id("a)\n' + PLAIN)
    assert (violation.field, "not closed" in violation.description) == ("a.cedar:2", True)


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\ufeff", "\x00", "\u2028", "\U000e0041"])
def test_refuses_characters_that_a_reviewer_cannot_see(hidden: str) -> None:
    _, (violation,) = split_statements("a.cedar", f"\n// {hidden}\n{PLAIN}")
    assert violation.field == "a.cedar:2"
    assert f"U+{ord(hidden):04X}" in violation.description


def test_refuses_brackets_deeper_than_the_engine_stands() -> None:
    depth = MAX_BRACKET_DEPTH + 1
    statements, (violation,) = split_statements("a.cedar", wrap("(" * depth + "true" + ")" * depth))
    assert (statements, "nested" in violation.description) == ([], True)


def test_refuses_longer_chains_than_the_engine_stands() -> None:
    statements, (violation,) = split_statements("a.cedar", wrap("true && " * (MAX_CHAINED + 1) + "true"))
    assert (statements, "operators" in violation.description) == ([], True)


@pytest.mark.parametrize("condition", ["(" * 20_000 + "true" + ")" * 20_000, "true && " * 40_000 + "true"])
def test_stops_what_ends_the_process_in_the_bare_engine(condition: str) -> None:
    program = (
        "import resource, sys, cedarpy; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "cedarpy.policies_to_pst(sys.stdin.read())"
    )
    bare = subprocess.run([sys.executable, "-c", program], input=wrap(condition), text=True, check=False)
    assert bare.returncode < 0
    assert split_statements("a.cedar", wrap(condition))[0] == []


@given(st.lists(st.sampled_from([PLAIN, wrap('"a;b" == "c"'), '@id("x;y")\n' + PLAIN]), max_size=8))
def test_finds_as_many_policies_as_were_written(written: list[str]) -> None:
    statements, violations = split_statements("a.cedar", "\n// ; a comment\n".join(written))
    assert ([s.text for s in statements], violations) == (written, [])
