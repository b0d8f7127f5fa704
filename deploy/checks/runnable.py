"""Run the blocks of a document that are marked as runnable, as they stand there.

A mark is a comment right above a fence; blocks with the same name are one walk, in one shell, in their order:

    <!-- run: ten-minutes -->
    <!-- run: ten-minutes; needs: node; prints: Good morning, Ada! -->

`needs` names a part of the tests (`TOOLCRIB_WITHOUT=node` leaves it out); `prints` is text that the block has
to print. From the shell: `python -P -m deploy.checks.runnable README.md ten-minutes FOLDER`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300
_BLOCK = re.compile(r"^<!-- run: (?P<mark>[^>]*?) -->\n+```\w*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINE = "==> line "


class WalkFailed(Exception):
    """A block did not do what the document says; the message names its line, and what was printed."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block.

    Attributes:
        line: Where its text begins in the document, from 1.
        walk: The name in its mark.
        needs: A part that it needs; empty for none.
        prints: Text that it has to print; empty for any.
    """

    line: int
    walk: str
    text: str
    needs: str = ""
    prints: str = ""


def find_blocks(document: str, walk: str = "") -> list[Block]:
    """Find the marked blocks of a document, of one walk or of all.

    Raises:
        WalkFailed: A mark says something that no mark says.
    """
    found = []
    for match in _BLOCK.finditer(document):
        name, *more = (part.strip() for part in match["mark"].split(";"))
        line = document.count("\n", 0, match.start("text")) + 1
        said = dict(_read_part(part, line) for part in more)
        if walk in ("", name):
            found.append(Block(line, name, match["text"], **said))
    return found


def _read_part(part: str, line: int) -> tuple[str, str]:
    name, _, value = part.partition(":")
    if name not in ("needs", "prints") or not value.strip():
        raise WalkFailed(f"line {line}: a mark has `needs:` and `prints:`, not {part!r}")
    return name, value.strip()


def run_walk(
    blocks: Sequence[Block],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> dict[int, str]:
    """Run blocks in one shell; what one exports the next one has.

    Args:
        blocks: Of one walk, in their order.
        folder: Where the shell begins.
        environment: More variables; beside them there are PATH and a HOME of its own.
        without: Parts that are not there: blocks that need one are left out.

    Returns:
        What each block printed, by its line.

    Raises:
        WalkFailed: A block failed, or did not print what it should; or there is no block.
    """
    chosen = [block for block in blocks if block.needs not in without or not block.needs]
    if not chosen:
        raise WalkFailed("no block is marked with this name")
    script = "\n".join(f'echo "{_LINE}{block.line}"\n{block.text}' for block in chosen)
    with tempfile.TemporaryDirectory(prefix="toolcrib-home-") as home:
        variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={**variables, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    printed = _split(done.stdout)
    if done.returncode:
        raise WalkFailed(f"the block at line {max(printed, default=0)} failed:\n{done.stdout[-4000:]}")
    for block in chosen:
        if block.prints not in printed[block.line]:
            said = printed[block.line][-4000:]
            raise WalkFailed(f"the block at line {block.line} did not print {block.prints!r} but:\n{said}")
    return printed


def _split(text: str) -> dict[int, str]:
    """Give what was printed after each block's line."""
    parts = re.split(rf"^{_LINE}(\d+)\n", text, flags=re.MULTILINE)
    return {int(line): said for line, said in zip(parts[1::2], parts[2::2], strict=True)}


def main() -> int:
    """Run a walk of a document in a folder, and print what it printed; 1 when it failed."""
    if len(sys.argv) != 4:
        print("usage: python -P -m deploy.checks.runnable DOCUMENT WALK FOLDER", file=sys.stderr)
        return 2
    document, walk, folder = sys.argv[1:]
    try:
        printed = run_walk(find_blocks(Path(document).read_text(), walk), Path(folder))
    except WalkFailed as error:
        print(f"error: {document}: {error}", file=sys.stderr)
        return 1
    print("".join(printed.values()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
