"""The worst content of a mebibyte that we know: it ends within its cap, cleaned or refused."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tools.content.kinds import Format, Problem
from tools.content.worker.frames import Job, Rejected
from tools.content.worker.process import Worker, WorkerBroken

MEBI = 1024 * 1024
WORST = {
    "ampersands": (Format.HTML, "&" * MEBI),
    "less-than signs": (Format.HTML, "<" * MEBI),
    "nested tags": (Format.HTML, "<div>" * (MEBI // 5)),
    "nested tables": (Format.HTML, "<table><td>" * (MEBI // 11)),
    "formatting that is opened again": (Format.HTML, ("<b>" * 20 + "<p>") * (MEBI // 63)),
    "a deep and wide tree": (Format.HTML, ("<i>" * 400 + "</i>" * 400) * (MEBI // 2_800)),
    "an attribute without an end": (Format.HTML, '<a title="' + "x" * (MEBI - 10)),
    "a tag without an end": (Format.HTML, "<a " + "a " * (MEBI // 2 - 2)),
    "a comment without an end": (Format.HTML, "<!--" + "-" * (MEBI - 4)),
    "comments": (Format.HTML, "<!-- -->" * (MEBI // 8)),
    "a huge style sheet": (Format.HTML, "<style>" + ".a{color:red}" * 40_000),
    "many selectors": (Format.HTML, "<style>" + "".join(f".a{n} .b{{top:-999px}}" for n in range(20_000))),
    "selectors times elements": (
        Format.HTML,
        "<style>" + "".join(f".a{n} .b{{display:none}}" for n in range(499)) + "</style>" + "<p>" * 49_000,
    ),
    "nested brackets of CSS": (Format.HTML, "<style>" + "(" * 100_000),
    "variables of variables": (
        Format.HTML,
        "<style>:root{" + "--a:var(--a) var(--a) var(--a);" * 10_000 + "} p{left:var(--a)}</style><p>x",
    ),
    "style attributes": (Format.HTML, "".join(f"<p style='left:{n}px'>x" for n in range(40_000))),
    "colours times elements": (
        Format.HTML,
        "<style>"
        + "".join(f".a{n}{{color:#{n:06x}}}" for n in range(1_900))
        + "</style>"
        + f"<p class='{' '.join(f'a{n}' for n in range(1_900))}'>x"
        + "<p>" * 9_000,
    ),
    "doubled variables": (
        Format.HTML,
        "<style>:root{"
        + "".join(f"--a{n}:f(var(--a{n + 1}),var(--a{n + 1}));" for n in range(30))
        + "--a30:x} p{color:var(--a0);left:var(--a0)}</style><p>x",
    ),
    "frames of animations": (
        Format.HTML,
        "<style>"
        + "@keyframes k{to{opacity:1}}" * 5_000
        + ".a{animation:k 1s}" * 5_000
        + "</style><p class=a>x",
    ),
    "stars of Markdown": (Format.MARKDOWN, "*a_" * 40_000),
    "brackets of Markdown": (Format.MARKDOWN, "[" * 20_000),
    "quotes of Markdown": (Format.MARKDOWN, ">" * 130_000),
    "a mebibyte of Markdown": (Format.MARKDOWN, "a " * (MEBI // 2)),
    "lists of JSON": (Format.JSON, "[" * MEBI),
    "numbers of JSON": (Format.JSON, "[" + "1," * (MEBI // 2 - 2) + "1]"),
    "one number of JSON": (Format.JSON, "9" * MEBI),
    "invisible characters": (Format.TEXT, "a\u200b" * (MEBI // 2)),
}
# One of each kind is enough from day to day.
LONG = frozenset(
    ("less-than signs", "nested tables", "formatting that is opened again", "a tag without an end",
     "comments", "many selectors", "style attributes", "brackets of Markdown", "numbers of JSON",
     "stars of Markdown", "selectors times elements", "frames of animations")
)  # fmt: skip


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker(clean_seconds=2.0)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "name", [name for name in WORST if name not in LONG or os.environ.get("TOOLCRIB_LONG") == "1"]
)
async def test_ends_within_its_cap(worker: Worker, name: str) -> None:
    form, text = WORST[name]

    try:
        (cleaned,) = await worker.clean(Job((), ((form, text),)))
    except (Rejected, WorkerBroken) as error:
        assert error.problem is not Problem.BROKEN
    else:
        assert len(cleaned.text) <= 2 * len(text)


async def test_ends_what_no_bound_stops(worker: Worker) -> None:
    attributes = " ".join(f"a{n}=1" for n in range(100_000))

    with pytest.raises(WorkerBroken) as caught:
        await worker.clean(Job((), ((Format.HTML, f"<p {attributes}>"),)))

    assert caught.value.problem is Problem.TOO_SLOW
