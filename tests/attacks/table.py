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
    parts = [f"no {name.removeprefix('no-')}" for name in control.without]
    parts += [measure.name for measure in control.add]
    parts += [f"more {name}" for name in control.limits]
    return ", ".join(parts)


def describe_family(family: str, attacks: list[Attack]) -> Iterator[str]:
    """Make one family's part: what each wants, what stops it, and how its control is weakened."""
    yield f"#### {family.replace('_', ' ').capitalize()}"
    yield ""
    yield f"| attack | it wants | {' | '.join(RUNTIMES)} | it works with |"
    yield "|---|---|" + "---|" * len(RUNTIMES) + "---|"
    for attack in attacks:
        stops = [attack.what_stops(runtime) or "(nothing is written)" for runtime in RUNTIMES]
        if attack.probe is not None and (reason := attack.probe()):
            stops = [f"does not apply: {reason}"] * len(RUNTIMES)
        # The same for the second and third runtime is said once.
        cells = [stop if place == 0 or stop != stops[0] else "the same" for place, stop in enumerate(stops)]
        yield f"| {attack.name} | {attack.goal} | {' | '.join(cells)} | {describe_control(attack)} |"
    yield ""


def describe(attacks: tuple[Attack, ...]) -> str:
    """Make the whole part between the markers."""
    lines = [BEGIN, "", *describe_numbers(attacks), ""]
    for family, members in groupby(attacks, key=lambda attack: attack.family):
        lines += describe_family(family, list(members))
    return "\n".join([*lines, END])


def describe_numbers(attacks: tuple[Attack, ...]) -> Iterator[str]:
    """Say how many there are, and how many are not stopped."""
    yield f"{len(attacks)} attacks, each on {len(RUNTIMES)} runtimes and with its control."
    for runtime in RUNTIMES:
        open_ones = [attack.name for attack in attacks if runtime in attack.findings]
        if open_ones:
            yield f"Not stopped by {runtime}: {', '.join(open_ones)}."


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
