"""Every code point of Unicode is kept or removed as the rule says, stated here apart from how it is done."""

from __future__ import annotations

import unicodedata

import pytest

from tools.content.kinds import Kind
from tools.content.text import clean_text

# Default_Ignorable_Code_Point: DerivedCoreProperties.txt of Unicode 15.
IGNORABLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
# Prepended_Concatenation_Mark: PropList.txt. They are drawn, around or over the digits behind them.
DRAWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
# Drawn as nothing, and no spaces: the blank of Braille, Khitan's filler, the null note head.
BLANK = {0x2800, 0x16FE4, 0x1D159}
# Egyptian's joiners, of which this Python's Unicode may know some only.
JOINERS = set(range(0x13430, 0x13440))


def is_removed(point: int) -> bool:
    """State the rule."""
    category = unicodedata.category(chr(point))
    if point in (0x0A, 0x09):
        return False
    if category in ("Cc", "Cs", "Co", "Zl", "Zp") or (category == "Cf" and point not in DRAWN):
        return True
    is_noncharacter = 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE
    is_ignorable = any(first <= point <= last for first, last in IGNORABLE)
    return is_noncharacter or is_ignorable or point in BLANK or point in JOINERS


def test_keeps_or_removes_every_code_point_as_the_rule_says() -> None:
    points = [point for point in range(0x110000) if chr(point) != "|"]

    text, removed = clean_text("|".join(map(chr, points)))

    kept = text.split("|")
    assert len(kept) == len(points)
    assert [
        hex(point) for point, left in zip(points, kept, strict=True) if bool(left) == is_removed(point)
    ] == []
    assert sum(removed.values()) == kept.count("")
    assert all(left in ("", chr(point)) for point, left in zip(points, kept, strict=True))


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        (Kind.BIDIRECTIONAL, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
        (Kind.TAG, range(0xE0000, 0xE0080)),
        (Kind.PRIVATE, (*range(0xE000, 0xF900), 0xF0000, 0xFFFFD, 0x100000, 0x10FFFD)),
        (Kind.SURROGATE, range(0xD800, 0xE000)),
        (Kind.CONTROL, (*range(9), 0xB, 0xC, *range(0xD, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)),
        (Kind.INVISIBLE, (0xAD, 0x200B, 0x200D, 0x2060, 0xFE0F, 0xFEFF, 0xFFF9, 0xE0100, 0xFFFE, 0x10FFFF)),
    ],
)
def test_names_the_kind(kind: Kind, points: range) -> None:
    assert {tuple(clean_text(chr(point)).removed.items()) for point in points} == {((kind, 1),)}


def test_takes_joined_emoji_apart() -> None:
    family, heart = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f"

    assert clean_text(family).text == "\U0001f468\U0001f469\U0001f467"
    assert clean_text(heart).text == "\u2764"


def test_makes_one_line_end_of_two() -> None:
    assert clean_text("a\r\nb\rc").text == "a\nbc"
