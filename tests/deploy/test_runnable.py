"""Blocks of documents run as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.checks.runnable import WalkFailed, find_blocks, run_walk

DOCUMENT = """\
Text.

<!-- run: walk -->
```sh
export WHO=Ada
```

```sh
exit 7
```

<!-- run: other -->
```sh
exit 8
```

<!-- run: walk; needs: node; prints: Ada! -->
```sh
echo "$WHO!"
```
"""


def test_finds_the_blocks_of_one_walk_with_their_lines():
    blocks = find_blocks(DOCUMENT, "walk")
    assert [(block.line, block.needs, block.prints) for block in blocks] == [
        (5, "", ""),
        (19, "node", "Ada!"),
    ]
    assert len(find_blocks(DOCUMENT)) == 3


def test_keeps_what_a_block_exports(tmp_path: Path):
    assert run_walk(find_blocks(DOCUMENT, "walk"), tmp_path)[19] == "Ada!\n"


def test_leaves_out_what_needs_a_part_that_is_not_there(tmp_path: Path):
    assert list(run_walk(find_blocks(DOCUMENT, "walk"), tmp_path, without={"node"})) == [5]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<!-- run: walk -->\n```sh\ntrue\nfalse\n```\n", "the block at line 3 failed"),
        ("<!-- run: walk; prints: x -->\n```sh\necho y\n```\n", "line 3 did not print 'x' but:\ny"),
        ("<!-- run: walk -->\n```sh\nfalse | true\n```\n", "failed"),
        ("<!-- run: walk -->\n```sh\necho $NOT_THERE\n```\n", "failed"),
        ("nothing", "no block is marked"),
    ],
)
def test_says_which_block_failed(tmp_path: Path, text: str, fault: str):
    with pytest.raises(WalkFailed, match=fault):
        run_walk(find_blocks(text, "walk"), tmp_path)


def test_refuses_a_mark_that_it_does_not_know():
    with pytest.raises(WalkFailed, match="line 3: a mark has"):
        find_blocks("<!-- run: walk; expects: x -->\n```sh\ntrue\n```\n")


def test_gives_nothing_of_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_TESTER", "s3cret")
    text = "<!-- run: walk -->\n```sh\nenv\n```\n"
    assert "s3cret" not in run_walk(find_blocks(text), tmp_path)[3]
