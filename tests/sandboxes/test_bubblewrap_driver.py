"""The bubblewrap driver on the real kernel: what the contract suite does not ask of every driver."""

from __future__ import annotations


async def test_answers(bubblewrap_tool):
    assert await bubblewrap_tool.answer("answer = 6 * 7") == "42"
