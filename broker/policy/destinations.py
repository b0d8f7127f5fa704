"""Reads destinations.toml: the tenant's registry of known destinations.

    [[destination]]
    value = "iban:DE89370400440532013000"
    note = "the shop's own account"
    environments = ["prod"]        # optional; without it, every environment

A value of a destination field that is neither here nor in the grant is not refused by a policy but gated: a
person has to approve the call. An empty or missing file knows no destination.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.policy.findings import finding, name_nearest
from tools.errors import Violation

FILE_NAME = "destinations.toml"

_KEYS = ("value", "note", "environments")
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*destination[ \t]*\]\]", re.MULTILINE)
_MAX_VALUE = 1024


@dataclass(frozen=True, slots=True)
class KnownDestination:
    """One trusted value of destination fields. Empty `environments` means every one."""

    value: str
    note: str = ""
    environments: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Registry:
    """The known destinations of a tenant; empty knows none."""

    entries: tuple[KnownDestination, ...] = ()

    def trusted(self, environment: str) -> frozenset[str]:
        """Values that are trusted in one environment; to be compared byte for byte."""
        return frozenset(
            entry.value
            for entry in self.entries
            if not entry.environments or environment in entry.environments
        )


def read_destinations(text: str, environments: Sequence[str]) -> tuple[Registry, list[Violation]]:
    """Read the file's text, with every violation at once. Unusable entries are left out of the registry."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Registry(), [finding(FILE_NAME, f"is not TOML: {error}")]
    violations = [
        finding(FILE_NAME, f'"{key}" is unknown; {name_nearest(key, ["destination"])}')
        for key in document
        if key != "destination"
    ]
    tables = document.get("destination", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return Registry(), [
            *violations,
            finding(FILE_NAME, "destination must be tables, each under [[destination]]"),
        ]
    places = _places(text, len(tables))
    entries: list[KnownDestination] = []
    for place, table in zip(places, tables, strict=True):
        found = _find_wrong(table, environments)
        violations += [finding(place, problem) for problem in found]
        if not found:
            entries.append(_entry(table))
    return Registry(tuple(entries)), violations + _find_repeated(entries)


def _places(text: str, count: int) -> list[str]:
    lines = [text.count("\n", 0, header.start()) + 1 for header in _HEADER.finditer(text)]
    if len(lines) == count:
        return [f"{FILE_NAME}:{line}" for line in lines]
    return [f"{FILE_NAME} (destination {number})" for number in range(1, count + 1)]


def _find_wrong(table: Mapping[str, object], environments: Sequence[str]) -> list[str]:
    problems = [f'"{key}" is unknown; {name_nearest(key, _KEYS)}' for key in table if key not in _KEYS]
    value = table.get("value")
    if not isinstance(value, str) or not value or len(value) > _MAX_VALUE or not value.isprintable():
        problems.append(f"value must be text of 1 to {_MAX_VALUE} printable characters")
    if not isinstance(table.get("note", ""), str):
        problems.append("note must be text")
    return problems + _find_wrong_environments(table, environments)


def _find_wrong_environments(table: Mapping[str, object], environments: Sequence[str]) -> list[str]:
    if "environments" not in table:
        return []
    named = table["environments"]
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        return [
            'environments must be a list like ["prod"] with at least one; leave it out for every environment'
        ]
    return [
        f'environment "{name}" is unknown; {name_nearest(name, environments)}'
        for name in named
        if name not in environments
    ]


def _entry(table: Mapping[str, object]) -> KnownDestination:
    named = table.get("environments", [])
    environments = frozenset(str(name) for name in named) if isinstance(named, list) else frozenset[str]()
    return KnownDestination(str(table["value"]), str(table.get("note", "")), environments)


def _find_repeated(entries: Sequence[KnownDestination]) -> list[Violation]:
    counts = Counter(entry.value for entry in entries)
    return [
        finding(FILE_NAME, f'"{value}" is listed {count} times; keep one, with all its environments')
        for value, count in sorted(counts.items())
        if count > 1
    ]
