"""A pattern of a range of numbers takes these and no others."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.digits import MAX_PATTERN_CHARACTERS, match_digits

EDGES = (
    -(2**63),
    -1000,
    -101,
    -100,
    -99,
    -10,
    -1,
    0,
    1,
    9,
    10,
    11,
    99,
    100,
    119,
    999,
    12345,
    2**31,
    2**63 - 1,
)


@given(st.sampled_from(EDGES), st.sampled_from(EDGES), st.integers(-(2**64), 2**64))
@settings(max_examples=500, deadline=None)
def test_takes_what_is_in_the_range_and_nothing_else(least: int, greatest: int, number: int) -> None:
    pattern = match_digits(least, greatest)
    assert pattern is not None or least > greatest or greatest - least > 10**9
    if pattern is None:
        return
    near = {number, *(edge + step for edge in (least, greatest, 0) for step in (-11, -10, -1, 0, 1, 10, 100))}
    for each in near:
        assert bool(re.fullmatch(pattern, str(each))) == (least <= each <= greatest)


@pytest.mark.parametrize("text", ["", "+1", "01", "-0", "1.0", "1e1", " 1", "1\n2", "--1"])
def test_takes_no_other_spelling(text: str) -> None:
    assert not re.fullmatch(str(match_digits(-20, 200)), text)


def test_says_nothing_of_an_empty_range_and_of_one_too_long() -> None:
    assert match_digits(1, 0) is None
    assert match_digits(1, 9) == "^([1-9])$"
    assert match_digits(-(2**63) + 12345, 2**63 - 54321) is None
    assert len(str(match_digits(1, 10**12 + 7))) <= MAX_PATTERN_CHARACTERS
