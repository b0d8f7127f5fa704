"""CSV for spreadsheets: RFC 4180, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io

import pytest

from broker.cli.output import show, to_csv


def read_back(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_ends_lines_with_cr_and_lf():
    assert to_csv([{"a": 1, "b": "x"}]) == "a,b\r\n1,x\r\n"


def test_quotes_what_would_break_a_row():
    cell = 'say "no", or\nnothing'
    assert read_back(to_csv([{"a": cell, "b": "x"}])) == [["a", "b"], [cell, "x"]]


@pytest.mark.parametrize(
    "formula",
    ["=HYPERLINK(0)", "+1", "-2+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", " =1", "\n=1", "\uff1d1"],
)
def test_puts_an_apostrophe_before_what_would_run(formula: str):
    (_, (cell,)) = read_back(to_csv([{"a": formula}]))
    assert cell == f"'{formula}"


def test_defuses_a_formula_in_a_list_of_values():
    (_, (cell,)) = read_back(to_csv([{"a": ["=1", "x"]}]))
    assert cell == "'=1; x"


def test_defuses_a_formula_after_a_semicolon():
    """A spreadsheet set up for a country that writes 1,5 separates cells by semicolons."""
    (_, cells) = read_back(to_csv([{"a": "x;=1", "b": ["y", "@SUM(1)"], "c": "z; -"}]))
    assert cells == ["x;'=1", "y; '@SUM(1)", "z; '-"]


def test_leaves_numbers_and_plain_words_alone():
    rows = read_back(to_csv([{"a": -5, "b": "a-b", "c": True, "d": None, "e": ""}]))
    assert rows[1] == ["-5", "a-b", "true", "", ""]


def test_sends_no_escape_sequence_to_the_terminal():
    assert "\x1b" not in to_csv([{"a": "x\x1b[2J\rz"}])


def test_prints_headings_where_there_are_no_rows(capsys: pytest.CaptureFixture[str]):
    show([], "csv", empty="none", headings=("a", "b"))
    assert capsys.readouterr().out == "a,b\r\n"
