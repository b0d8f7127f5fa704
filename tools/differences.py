"""What changed between two versions of a bundle, as lines that a reviewer can read.

    methods, their terms and runtime · messages, fields, rules, roles, enums · credentials, targets, image,
    limits · what breaks callers

A `Difference` has a reason to look where the change gives a tool more than it had, lets more through its
contract, or tells a model something else. Without an earlier version everything is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tools.breaking import find_breaking_changes
from tools.errors import BundleInvalid
from tools.field_changes import (
    MODEL_READS,
    Difference,
    Facts,
    compare_facts,
    look_at_field,
    read_fields,
)
from tools.manifest import HttpLimits, Limits, Manifest, TargetWanted, read_manifest
from tools.registration import Registered, register_set

__all__ = ["Difference", "Subject", "find_differences", "sort_by_weight"]

_RESOLUTION = "how a doubtful write is found out about"


@dataclass(frozen=True, slots=True)
class Subject:
    """One side of a comparison.

    Attributes:
        image_id: Empty for a folder, whose image is not built.
    """

    descriptor_set: bytes
    manifest_yaml: str
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class _Side:
    registered: Registered | None
    manifest: Manifest | None

    @property
    def methods(self) -> Mapping[str, Facts]:
        """The facts of each method, by its name."""
        if self.registered is None or self.manifest is None:
            return {}
        return {
            name: _describe_method(name, self.registered, self.manifest) for name in self.registered.tools
        }


def find_differences(old: Subject | None, new: Subject) -> list[Difference]:
    """Compare two versions; the lines come in the order of the module's table.

    Where today's rules refuse the tool.yaml of the older version, all that the new one says is new.

    Raises:
        BundleInvalid: The new one breaks the rules of registration, or the old one's contract does.
        BufFailed: It cannot be known what breaks callers.
    """
    after = _read(new)
    before = _read_earlier(old) if old else _Side(None, None)
    found = [*_compare_methods(before, after)]
    if old is not None and before.manifest is None:
        text = "the earlier version's is refused by the rules of today, so all of this one is shown as new"
        found.insert(0, Difference("tool.yaml", text, "read all of it"))
    found += _compare_fields(before, after)
    found += _compare_manifests(before.manifest, after.manifest)
    if old is not None:
        found += _compare_images(old, new)
        broken = find_breaking_changes(old.descriptor_set, new.descriptor_set)
        found += [
            Difference(violation.field, violation.description, "breaks callers") for violation in broken
        ]
    return found


def sort_by_weight(found: Iterable[Difference]) -> list[Difference]:
    """Put first what a reviewer must not miss: an author can add comments without end, to hide one line."""
    return sorted(found, key=_weigh)


def _weigh(one: Difference) -> int:
    if not one.look:
        return 3
    if one.look == MODEL_READS:
        return 2
    return 0 if "/" in one.where or one.where in ("tool.yaml", "image") else 1


def _read(subject: Subject) -> _Side:
    return _Side(register_set(subject.descriptor_set), read_manifest(subject.manifest_yaml))


def _read_earlier(subject: Subject) -> _Side:
    try:
        return _read(subject)
    except BundleInvalid:
        return _Side(register_set(subject.descriptor_set), None)


def _describe_method(name: str, registered: Registered, manifest: Manifest) -> Facts:
    terms, descriptor = registered.tools[name]
    runtime = manifest.tools.get(name)
    facts: dict[str, object] = {
        "effect": terms.effect.value,
        "reach": terms.reach.value,
        "scope": terms.scope,
        "probe": terms.probe,
        "dedupes": terms.dedupes,
        "request": descriptor.input_type.full_name,
        "response": descriptor.output_type.full_name,
        "description": terms.description,
    }
    if runtime is not None:
        facts |= {
            "credentials": sorted(runtime.credentials),
            "targets": sorted(runtime.targets),
            "deadline seconds": runtime.deadline_seconds,
            "settle seconds": runtime.settle_seconds,
        }
    said = {key: value for key, value in facts.items() if value is not False and value not in ("", [])}
    return {key: _write(value) for key, value in said.items()}


def _write(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _compare_methods(before: _Side, after: _Side) -> Iterator[Difference]:
    earlier, later = before.methods, after.methods
    for name in sorted(earlier.keys() | later.keys()):
        if name not in later:
            yield Difference(name, "the tool is gone")
        elif name not in earlier:
            facts = "; ".join(f"{key} {value}" for key, value in later[name].items())
            yield Difference(name, f"a new tool: {facts}", "new tool")
        else:
            yield from compare_facts(name, earlier[name], later[name], _look_at_method)


def _look_at_method(fact: str, old: str, new: str) -> str:
    if fact in ("effect", "reach"):
        return f"{fact} changed"
    if fact == "settle seconds":
        return _RESOLUTION if float(new or 0) < float(old or 0) else ""
    if fact in ("credentials", "targets"):
        added = set(new.split(", ")) - set(old.split(", ")) - {""}
        return f"gets {'a credential' if fact == 'credentials' else 'a way out'} more" if added else ""
    looks = {
        "scope": "existing grants name the scope",
        "probe": _RESOLUTION,
        "dedupes": _RESOLUTION,
        "description": MODEL_READS,
    }
    return looks.get(fact, "")


def _compare_fields(before: _Side, after: _Side) -> Iterator[Difference]:
    """Compare messages, fields and enum values; without an earlier version all of them are new."""
    earlier, later = (read_fields(side.registered) if side.registered else {} for side in (before, after))
    for name in sorted(earlier.keys() | later.keys()):
        if name not in later:
            yield Difference(name, "is gone")
        elif name not in earlier:
            facts = "; ".join(f"{key} {value}" for key, value in later[name].items())
            yield Difference(name, f"is new: {facts}", MODEL_READS if "comment" in later[name] else "")
        else:
            yield from compare_facts(name, earlier[name], later[name], look_at_field)


def _compare_manifests(old: Manifest | None, new: Manifest | None) -> Iterator[Difference]:
    if new is None:
        return
    later = _describe_manifest(new)
    if old is None:  # what differs from what every bundle gets
        usual = _describe_limits(Limits())
        usual |= {
            f"targets.{name}.limits.{key}": f"{value:g}"
            for name in new.targets
            for key, value in HttpLimits().model_dump().items()
        }
        shown = {name: fact for name, fact in later.items() if usual.get(name) != fact}
        yield from (
            Difference("tool.yaml", f"{name}: {fact}", _look_at_manifest(name, "", fact))
            for name, fact in shown.items()
        )
    else:
        yield from compare_facts("tool.yaml", _describe_manifest(old), later, _look_at_manifest)


def _describe_limits(limits: Limits) -> dict[str, str]:
    return {f"limits.{name}": str(value) for name, value in limits.model_dump().items()}


def _describe_manifest(manifest: Manifest) -> Facts:
    facts: dict[str, str] = {
        "description": manifest.description,
        "isolation": manifest.isolation,
        "command": " ".join(manifest.image.command),
        **_describe_limits(manifest.limits),
    }
    if manifest.image.packages:
        facts["packages"] = ", ".join(sorted(manifest.image.packages))
    for name, wanted in manifest.credentials.items():
        facts[f"credentials.{name}"] = _write_fields(
            wanted.model_dump(exclude_defaults=True, exclude={"inject"})
        )
        if wanted.inject is not None:
            facts[f"credentials.{name}.inject"] = _write_fields(
                wanted.inject.model_dump(exclude_defaults=True)
            )
    for name, target in manifest.targets.items():
        facts |= _describe_target(f"targets.{name}", target)
    return facts


def _describe_target(name: str, target: TargetWanted) -> Facts:
    """Describe a target: each rule is a fact of its own, and a line that stands twice hides neither.

    Patterns stand in quotes: one that reads like a second header would hide that there is one.
    """
    facts = {name: f"kind {target.kind}{', opaque' if target.opaque else ''}"}
    if target.kind == "http":
        facts |= {f"{name}.limits.{key}": f"{value:g}" for key, value in target.limits.model_dump().items()}
    for rule in target.rules:
        listed = sorted(rule.headers.items())
        headers = "".join(f", header {key} {json.dumps(pattern)}" for key, pattern in listed)
        required = f", require {', '.join(sorted(rule.require))}" if rule.require else ""
        fact, earlier = f"{name}.allow {rule.text}", facts.get(f"{name}.allow {rule.text}")
        facts[fact] = f"{f'{earlier}; ' if earlier else ''}allowed{required}{headers}"
    return facts


def _write_fields(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items())


def _look_at_manifest(fact: str, old: str, new: str) -> str:
    part = fact.partition(".")[0]
    if ".limits." in f".{fact}" and part in ("limits", "targets") and " " not in fact:
        return "more than before" if old and new and float(new) > float(old) else ""
    if part in ("credentials", "targets"):
        return _look_at_reach(fact, part, old, new)
    looks = {
        "isolation": "isolation changed" if old else "",
        "packages": "programs in the sandbox",
        "command": "what is started" if old else "",
    }
    return looks.get(fact, "")


def _look_at_reach(fact: str, part: str, old: str, new: str) -> str:
    if fact.endswith(".inject"):
        return "how it is added changed" if new else "the tool gets the secret itself"
    if not new:
        return ""
    what = "rule" if ".allow " in fact else part.removesuffix("s")
    return f"another {what}" if old else f"new {what}"


def _compare_images(old: Subject, new: Subject) -> Iterator[Difference]:
    if old.image_id and new.image_id and old.image_id != new.image_id:
        yield Difference(
            "image", f"{old.image_id[:19]} → {new.image_id[:19]}", "the program: read its source"
        )
