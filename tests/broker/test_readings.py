"""A reading says from which part of the text it came, however the text was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.readings import read

ESCAPES = (
    r"\u0041 \\u0041 \ud83d\ude00 \ud83d \u00 \u \n \/ \x41 \U0001f600 \N \1 \ \\ % %4 %41 %C3%A9 + a é 😀"
)
PIECES = st.sampled_from([*ESCAPES.split(" "), " ", "\u200b"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0\ufdd1"), max_size=2
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_tracing_reads_the_same(text: str):
    for reading, way in read(text, forms=True):
        traced = way.trace(text)
        assert traced.text == reading
        assert len(traced.starts) == len(traced.ends) == len(reading)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_tracing_tells_a_part_of_the_text(text: str):
    for _, way in read(text, forms=True):
        traced = way.trace(text)
        for start, end in zip(traced.starts, traced.ends, strict=True):
            assert 0 <= start < end <= len(text)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        (r"a\u0041\/\\u0041\\\/", r"aA/\u0041\/"),
        (r"\ud83d\ude00\ud83dx\xe9", "😀\ufffdxé"),
        (r"\U0001f600 \uZZZZ \N{DASH} \1", r"😀\uZZZZ\N{DASH}\1"),
        ("%41%c3%A9%zz%C3x", "Aé%zz\ufffdx"),
        ("%5Cu0041", "A"),
        (r"\\\\u0041", "A"),
        ("%2541", "A"),
        ("a \t\u00a0\u2003\u200b\u00ad\ufeff\x00\x1b\u202e\U000e0041b", "ab"),
    ],
)
def test_undoes_what_hides_a_text(text: str, reading: str):
    assert reading in [found for found, _ in read(text)]


def test_reads_from_the_end_as_well():
    assert [reading for reading, _ in read("a b")] == ["ab", "ba"]


def test_undoes_no_more_than_it_says():
    deep = "\\" * 16 + "u0041"
    assert "A" not in [reading for reading, _ in read(deep)]
    assert len(list(read(deep + "%25" * 5 + " +", forms=True))) <= 120


@pytest.mark.parametrize("piece", ["%41x", "\\nx", "\\\\u0041%41 ", "%25", "\\", "%", "\u200b+"])
def test_reads_three_mebibytes_of_anything(piece: str):
    text = piece * (3 * 1024 * 1024 // len(piece))
    assert all(len(reading) <= len(text) for reading, _ in read(text))
