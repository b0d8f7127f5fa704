"""Reads destinations.toml: the tenant's registry of known destinations.

    [[destination]]
    value = "iban:DE89370400440532013000"
    note = "the shop's own account"
    environments = ["prod"]        # optional; without it, every environment

    [[destination]]
    value = "https://docs.example"
    match = "host"                 # optional: "exact" (the default), "host" or "prefix"

    match     value                        trusts
    exact     any text                     that text, byte for byte
    host      an origin                    every URL of that scheme, host and port
    prefix    a URL whose path ends in /   every URL that begins with it, byte for byte

A value of a destination field that is neither here nor in the grant is gated (stages/gate.py). An empty or
missing file knows no destination.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.policy.findings import finding, name_nearest
from broker.policy.urls import read_url
from tools.errors import Violation

FILE_NAME = "destinations.toml"

_KEYS = ("value", "note", "environments", "match")
MATCHES = ("exact", "host", "prefix")
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*destination[ \t]*\]\]", re.MULTILINE)
_MAX_VALUE = 1024


@dataclass(frozen=True, slots=True)
class KnownDestination:
    """One entry: what it trusts in destination fields. Empty `environments` means every one."""

    value: str
    note: str = ""
    environments: frozenset[str] = frozenset()
    match: str = "exact"

    def covers(self, value: str) -> bool:
        """Tell whether a value is one that this entry trusts."""
        if self.match == "exact":
            return value == self.value
        url = read_url(value)
        if url is None:
            return False
        return value.startswith(self.value) if self.match == "prefix" else url.origin == self.value


class Known:
    """The destinations that are trusted in one environment: `value in known`."""

    def __init__(self, entries: Sequence[KnownDestination] = ()) -> None:
        self._values = frozenset(entry.value for entry in entries if entry.match == "exact")
        self._origins = frozenset(entry.value for entry in entries if entry.match == "host")
        self._prefixes = tuple(entry.value for entry in entries if entry.match == "prefix")

    @property
    def origins(self) -> frozenset[str]:
        """The hosts that are trusted as a whole, each as "https://host"."""
        return self._origins

    def __contains__(self, value: str) -> bool:
        """Tell whether an entry trusts a value."""
        if value in self._values:
            return True
        url = read_url(value) if self._origins or self._prefixes else None
        return url is not None and (url.origin in self._origins or value.startswith(self._prefixes))


KNOWS_NOTHING = Known()


@dataclass(frozen=True, slots=True)
class Registry:
    """The known destinations of a tenant; empty knows none."""

    entries: tuple[KnownDestination, ...] = ()

    def trusted(self, environment: str) -> Known:
        """What is trusted in one environment."""
        return Known(self.within(environment))

    def within(self, environment: str) -> Sequence[KnownDestination]:
        """The entries that hold in one environment."""
        return [
            entry for entry in self.entries if not entry.environments or environment in entry.environments
        ]


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
    return problems + _find_wrong_match(table) + _find_wrong_environments(table, environments)


def _find_wrong_match(table: Mapping[str, object]) -> list[str]:
    match, value = table.get("match", "exact"), str(table.get("value", ""))
    if match not in MATCHES:
        return [f'match must be one of {", ".join(MATCHES)}; leave it out for "exact"']
    if match == "host":
        url = read_url(_with_slash(value))
        if url is None or url.origin != _bare_origin(value):
            return ['match = "host" wants an origin as value, in lower case, like "https://docs.example"']
    if match == "prefix":
        url = read_url(value)
        if url is None or not value.endswith("/") or value != url.origin + url.path:
            return ['match = "prefix" wants a URL as value that ends in /, like "https://docs.example/api/"']
    return []


def _with_slash(value: str) -> str:
    return value if value.endswith("/") else f"{value}/"


def _bare_origin(value: str) -> str:
    return value.removesuffix("/")


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
    match, value = str(table.get("match", "exact")), str(table["value"])
    value = _bare_origin(value) if match == "host" else value
    return KnownDestination(value, str(table.get("note", "")), environments, match)


def _find_repeated(entries: Sequence[KnownDestination]) -> list[Violation]:
    counts = Counter((entry.value, entry.match) for entry in entries)
    return [
        finding(FILE_NAME, f'"{value}" is listed {count} times; keep one, with all its environments')
        for (value, _), count in sorted(counts.items())
        if count > 1
    ]
