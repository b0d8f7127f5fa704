"""Writes the table of attacks into docs/security.md: `python -m tests.attacks.table --write`.

Without `--write` it says whether the table is up to date, by its exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.attacks.arena import RUNTIMES, Attack, load_attacks

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN = "<!-- attacks: written by `python -m tests.attacks.table --write` -->"
END = "<!-- attacks: end -->"


def describe_control(attack: Attack) -> str:
    """Say how the control is weakened."""
    control = attack.control
    if control.says:
        return control.says
    parts = [f"without {', '.join(control.without)}"] if control.without else []
    parts += [measure.name for measure in control.add]
    parts += [f"{name}={value}" for name, value in control.limits.items()]
    return ", ".join(parts) or ("its judge lets it in" if attack.judge else "")


def describe_stops(attack: Attack) -> str:
    """Say what stops it: once where the runtimes do not differ."""
    by_text: dict[str, list[str]] = {}
    for runtime in RUNTIMES:
        by_text.setdefault(attack.what_stops(runtime), []).append(runtime.removeprefix("docker-"))
    if len(by_text) == 1:
        return next(iter(by_text))
    return "; ".join(f"*{', '.join(runtimes)}*: {text}" for text, runtimes in by_text.items())


def describe_family(family: str, attacks: list[Attack]) -> Iterator[str]:
    """Make one family's part: what each wants, what stops it, and how its control is weakened."""
    yield f"### {family.replace('_', ' ').capitalize()}"
    yield ""
    yield "| attack | it wants | what stops it | control |"
    yield "|---|---|---|---|"
    for attack in attacks:
        known = " (where the kernel has it)" if attack.probe is not None else ""
        cells = (attack.name + known, attack.goal, describe_stops(attack), describe_control(attack))
        yield f"| {' | '.join(cells)} |"
    yield ""


def describe(attacks: tuple[Attack, ...]) -> str:
    """Make the whole part between the markers."""
    lines = [BEGIN, "", *describe_numbers(attacks)]
    by_family = sorted(attacks, key=lambda attack: attack.family)
    for family, members in groupby(by_family, key=lambda attack: attack.family):
        lines += describe_family(family, list(members))
    return "\n".join([*lines, END])


def describe_numbers(attacks: tuple[Attack, ...]) -> Iterator[str]:
    """Say how many there are, and how many are not stopped."""
    yield f"{len(attacks)} attacks, each on {len(RUNTIMES)} runtimes and with its control."
    yield ""
    for runtime in RUNTIMES:
        open_ones = [attack.name for attack in attacks if runtime in attack.findings]
        if open_ones:
            yield f"- Not stopped by {runtime}: {', '.join(open_ones)}.\n"


def place(text: str, table: str) -> str:
    """Put the table between the markers of a page.

    Raises:
        ValueError: The page has no such markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN!r} and {END!r}")
    return before + table + after


def main(arguments: list[str]) -> int:
    """Write the table, or compare it."""
    text = PAGE.read_text()
    wanted = place(text, describe(load_attacks()))
    if "--write" in arguments:
        PAGE.write_text(wanted)
        return 0
    return int(text != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
