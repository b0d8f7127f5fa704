"""Advice on the manifest: what a tool gets for a call should be no more than it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tools.advice.extent import measure_response
from tools.advice.subject import Subject, split_words
from tools.contract import Effect
from tools.errors import Violation, breach
from tools.manifest import Manifest

LONG_SECONDS, SHORT_SECONDS = 120.0, 0.5
MANY_SIGNATURES = 10
DEFAULT_OUTPUT_KIB = 256
_BROAD = frozenset(
    {
        "admin",
        "administrator",
        "root",
        "superuser",
        "owner",
        "master",
        "all",
        "any",
        "sudo",
        "everything",
        "postgres",
    }
)


def find_unused_credentials(subject: Subject) -> Iterator[Violation]:
    """Yield credentials that no method gets."""
    manifest = subject.manifest
    for name in _list_unused(manifest, "credentials"):
        yield breach("CREDENTIAL_UNUSED", f"tool.yaml: credentials.{name}", "is used by no method")


def find_unused_targets(subject: Subject) -> Iterator[Violation]:
    """Yield targets that no method reaches."""
    for name in _list_unused(subject.manifest, "targets"):
        yield breach("TARGET_UNUSED", f"tool.yaml: targets.{name}", "is used by no method")


def find_shared_credentials(subject: Subject) -> Iterator[Violation]:
    """Yield credentials that a READ has in common with a DRAFT or a WRITE."""
    for name, effects in _map_effects(subject).items():
        if len(effects) > 1:
            named = " and ".join(sorted(effects))
            yield breach(
                "CREDENTIAL_SHARED", f"tool.yaml: credentials.{name}", f"serves {named} methods alike"
            )


def find_shared_roles(subject: Subject) -> Iterator[Violation]:
    """Yield credentials that are different by name only."""
    if subject.manifest is None:
        return
    effects = _map_effects(subject)
    wanted = [(name, asked) for name, asked in subject.manifest.credentials.items() if effects.get(name)]
    for index, (name, asked) in enumerate(wanted):
        for other, same in wanted[:index]:
            is_same = (asked.engine, asked.role) == (same.engine, same.role)
            if is_same and effects[name] != effects[other]:
                problem = f"has the role {asked.role} of {other}, for methods of another effect"
                yield breach("ROLE_SHARED", f"tool.yaml: credentials.{name}.role", problem)


def find_broad_roles(subject: Subject) -> Iterator[Violation]:
    """Yield roles that are an administrator's by their name."""
    for name, asked in (subject.manifest.credentials if subject.manifest else {}).items():
        words = set(split_words(asked.role)) & _BROAD
        if words:
            problem = f"has the role {asked.role}, which is broad by its name ({min(words)})"
            yield breach("ROLE_BROAD", f"tool.yaml: credentials.{name}.role", problem)


def find_shared_keys(subject: Subject) -> Iterator[Violation]:
    """Yield signing keys of several methods: what one signs, another can pass for its own."""
    manifest = subject.manifest
    if manifest is None:
        return
    for name, asked in manifest.credentials.items():
        users = [method for method, tool in manifest.tools.items() if name in tool.credentials]
        if asked.engine == "transit" and len(users) > 1:
            yield breach("KEY_SHARED", f"tool.yaml: credentials.{name}", f"signs for {len(users)} methods")


def find_many_signatures(subject: Subject) -> Iterator[Violation]:
    """Yield credentials by which one call signs a lot."""
    for name, asked in (subject.manifest.credentials if subject.manifest else {}).items():
        if asked.max_signatures > MANY_SIGNATURES:
            problem = f"lets one call sign {asked.max_signatures} times"
            yield breach("SIGNATURES_MANY", f"tool.yaml: credentials.{name}.max_signatures", problem)


def find_odd_deadlines(subject: Subject) -> Iterator[Violation]:
    """Yield deadlines that nobody waits for, or that no sandbox keeps."""
    for method, tool in (subject.manifest.tools if subject.manifest else {}).items():
        place = f"tool.yaml: tools.{method}.deadline_seconds"
        if tool.deadline_seconds > LONG_SECONDS:
            yield breach("DEADLINE_LONG", place, f"is {tool.deadline_seconds:g} s, over {LONG_SECONDS:g}")
        elif tool.deadline_seconds < SHORT_SECONDS:
            yield breach("DEADLINE_SHORT", place, f"is {tool.deadline_seconds:g} s, under {SHORT_SECONDS:g}")


def find_large_output(subject: Subject) -> Iterator[Violation]:
    """Yield a cap above the default that no result can reach."""
    if subject.manifest is None or subject.manifest.limits.output_kib <= DEFAULT_OUTPUT_KIB:
        return
    sizes = [measure_response(method.output_type) for _, method in subject.methods()]
    if sizes and all(size is not None for size in sizes):
        needed = max(size or 0 for size in sizes) // 1024 + 1
        if needed < subject.manifest.limits.output_kib // 2:
            problem = f"is {subject.manifest.limits.output_kib}, and no result has more than {needed} KiB"
            yield breach("OUTPUT_LARGE", "tool.yaml: limits.output_kib", problem)


def _list_unused(manifest: Manifest | None, part: str) -> list[str]:
    if manifest is None:
        return []
    used = {name for tool in manifest.tools.values() for name in getattr(tool, part)}
    if part == "targets":
        wanted = manifest.credentials.values()
        used |= {asked.target for asked in wanted if asked.target is not None}
    return [name for name in getattr(manifest, part) if name not in used]


def _map_effects(subject: Subject) -> Mapping[str, frozenset[Effect]]:
    """Map each used credential to the effects of the methods that get it."""
    if subject.manifest is None:
        return {}
    found: dict[str, set[Effect]] = {}
    for terms, _ in subject.methods():
        tool = subject.manifest.tools.get(terms.method)
        for name in tool.credentials if tool is not None else ():
            found.setdefault(name, set()).add(terms.effect)
    return {name: frozenset(effects) for name, effects in found.items()}
