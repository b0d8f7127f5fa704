"""The column of a call's connections, also when somebody changed it."""

from __future__ import annotations

import pytest

from broker.store.connection_text import read_connections, without_digests
from broker.store.records import StoreError

CHANGED = [
    "{",
    "[]",
    "null",
    '{"kept": [], "dropped": 1e999}',
    '{"kept": [], "dropped": null}',
    '{"kept": {"a": 1}, "dropped": 0}',
    '{"kept": ["request_sha256"], "dropped": 0}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", CHANGED)
def test_says_that_the_text_was_changed(text: str) -> None:
    with pytest.raises(StoreError, match="call c1: its connections cannot be read"):
        read_connections("c1", text)


@pytest.mark.parametrize("text", ["", '{"dropped":3,"kept":[]}'])
def test_control_reads_what_was_not_changed(text: str) -> None:
    assert read_connections("c1", text) == ((), 3 if text else 0)


@pytest.mark.parametrize("text", CHANGED[:3] + CHANGED[5:])
def test_erases_a_changed_text_that_may_hold_a_digest(text: str) -> None:
    assert without_digests(f'{text} "request_sha256"') == ""


def test_erases_digests_and_nothing_else() -> None:
    text = '{"dropped":3,"kept":[{"a":1,"request_sha256":"x","response_sha256":"y"}]}'
    assert without_digests(text) == '{"dropped":3,"kept":[{"a":1}]}'
