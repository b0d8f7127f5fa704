"""Advice on the way out: rules and credentials of HTTP targets that allow or show more than they need to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.advice.subject import Subject
from tools.errors import Violation, breach
from tools.manifest import TargetWanted
from tools.manifest_egress import ENGINES

_KEY_HEADER = re.compile(rb"(?i)(?<![a-z0-9-])((?:x-)?idempotency-(?:key|token))(?![a-z0-9-])")
_COULD_BE_ADDED = frozenset(engine for engines in ENGINES.values() for engine in engines)


def find_query_credentials(subject: Subject) -> Iterator[Violation]:
    """Yield credentials that become part of URLs."""
    for name, wanted in (subject.manifest.credentials if subject.manifest else {}).items():
        if wanted.inject is not None and wanted.inject.form == "query":
            problem = "puts the secret into the URL, which servers and proxies log"
            yield breach("INJECT_QUERY", f"tool.yaml: credentials.{name}.inject", problem)


def find_handed_credentials(subject: Subject) -> Iterator[Violation]:
    """Yield credentials of HTTP targets that the tool gets though the proxy could add them."""
    if subject.manifest is None:
        return
    for name, wanted in subject.manifest.credentials.items():
        target = subject.manifest.targets.get(wanted.target or "")
        if target is None or target.kind != "http" or target.opaque or wanted.inject is not None:
            continue
        if wanted.engine in _COULD_BE_ADDED:
            problem = f"is handed to the tool, though the proxy could add it for {wanted.target}"
            yield breach("CREDENTIAL_HANDED", f"tool.yaml: credentials.{name}", problem)


def find_opaque_targets(subject: Subject) -> Iterator[Violation]:
    """Yield targets whose requests nobody sees."""
    for name, target in _list_targets(subject):
        if target.opaque:
            problem = "is opaque: no rules, no credential added, no paths in the record"
            yield breach("TARGET_OPAQUE", f"tool.yaml: targets.{name}.opaque", problem)


def find_wide_rules(subject: Subject) -> Iterator[Violation]:
    """Yield rules that leave the query, or the end of the path, to the tool."""
    for name, target in _list_targets(subject):
        for index, rule in enumerate(target.rules):
            place = f"tool.yaml: targets.{name}.allow.{index}"
            if rule.query is None:
                yield breach("RULE_ANY_QUERY", place, "lets any query pass")
            if ":rest}" in rule.path:
                yield breach("RULE_REST", place, "allows everything below its path")


def find_dropped_keys(subject: Subject) -> Iterator[Violation]:
    """Yield targets of methods that dedupe by a header that the handler names and no rule lets pass."""
    named = {found.lower().decode() for data in subject.files.values() for found in _KEY_HEADER.findall(data)}
    by_key = {terms.method for terms, _ in subject.methods() if terms.dedupes}
    tools = subject.manifest.tools if subject.manifest else {}
    used = {target for method, tool in tools.items() if method in by_key for target in tool.targets}
    for name, target in _list_targets(subject):
        listed = {header for rule in target.rules for header in rule.headers}
        if name in used and target.rules and named and not named & listed:
            problem = f"lets no {min(named)} pass, by which the target would dedupe: the proxy drops it"
            yield breach("KEY_DROPPED", f"tool.yaml: targets.{name}.allow", problem)


def _list_targets(subject: Subject) -> Iterator[tuple[str, TargetWanted]]:
    yield from (subject.manifest.targets if subject.manifest else {}).items()
