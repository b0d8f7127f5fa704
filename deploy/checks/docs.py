"""Check the documentation against what it speaks of; `--write` brings its help texts up to date.

Rules:
1. A block after `<!-- help: COMMAND -->` is what `COMMAND --help` prints, 80 columns wide.
2. A relative link of a Markdown file leads to a file that is there.
3. A command of ours that a document shows, `toolcrib calls list …`, is one that there is.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELP = re.compile(r"(<!-- help: (?P<command>[a-z -]+) -->\n```\w*\n)(?P<text>.*?)(?=```)", re.DOTALL)
SHOWN = re.compile(r"(?:`|^ *(?:\$ )?)toolcrib (?P<words>[a-z]+(?: [a-z]+)*)", re.MULTILINE)
LIST_COMMANDS = """
import click
from broker.cli import main
def walk(command, path):
    print(path)
    context = click.Context(command)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        walk(command.get_command(context, name), f"{path} {name}".strip())
walk(main, "")
"""
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(#[^)]*)?\)")


def documents() -> list[Path]:
    """List the Markdown files that we write."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def print_help(command: str) -> str:
    """Run `command --help` of our own environment."""
    program, *rest = shlex.split(command)
    result = subprocess.run(
        [str(ROOT / ".venv" / "bin" / program), *rest, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
    )
    if result.returncode:
        raise SystemExit(f"error: {command} --help failed: {result.stderr.strip()[-500:]}")
    return result.stdout


def check_help(path: Path, write: bool) -> Iterator[str]:
    """Compare a document's help texts with the commands', or replace them."""
    text = path.read_text()
    fresh = HELP.sub(lambda match: match[1] + print_help(match["command"]), text)
    if fresh != text and write:
        path.write_text(fresh)
    elif fresh != text:
        yield f"{path.relative_to(ROOT)}: a help text is out of date. Run: make docs"


def list_commands() -> frozenset[str]:
    """List our commands by their whole path, for example "calls list"; the first is "", the program."""
    python = str(ROOT / ".venv" / "bin" / "python")
    result = subprocess.run([python, "-P", "-c", LIST_COMMANDS], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"error: the command line cannot be read: {result.stderr.strip()[-500:]}")
    return frozenset(result.stdout.splitlines())


def check_commands(paths: list[Path]) -> Iterator[str]:
    """Look every command up that a document shows."""
    shown = [(path, match["words"]) for path in paths for match in SHOWN.finditer(path.read_text())]
    commands = list_commands() if shown else frozenset()
    groups = {command.rpartition(" ")[0] for command in commands}
    for path, words in sorted(set(shown)):
        first, _, rest = words.partition(" ")
        command = f"{first} {rest.split(' ')[0]}".strip() if first in groups else first
        if command not in commands:
            yield f"{path.relative_to(ROOT)}: there is no command `toolcrib {command}`"


def check_links(path: Path) -> Iterator[str]:
    """Follow a document's relative links."""
    for match in LINK.finditer(path.read_text()):
        target = match["target"]
        if "://" not in target and not (path.parent / target).exists():
            yield f"{path.relative_to(ROOT)}: the link to {target} leads nowhere"


def main() -> int:
    """Print what is wrong; 1 when anything is."""
    write = sys.argv[1:] == ["--write"]
    paths = documents()
    errors = [error for path in paths for error in (*check_help(path, write), *check_links(path))]
    errors += check_commands(paths)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
