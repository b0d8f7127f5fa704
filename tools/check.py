"""Everything that is wrong with a bundle's folder, at once, each fault with its place and its remedy.

Errors are what registration refuses. Warnings come from tools/advice; an author who has thought about one
writes `check: accept CODE` as a comment on its line, and it is shown no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tools.advice import Subject, advise
from tools.blame import blame_fields
from tools.catalogue import Parts, ToolVersion, build_version, read_parts
from tools.codes import CODES, Severity
from tools.entry import check_entry
from tools.errors import BundleInvalid, Violation, collect
from tools.manifest import read_manifest
from tools.places import ManifestPlaces, Place, ProtoPlaces
from tools.registration import register_set
from tools.source import compile_protos, read_handler, read_manifest_text
from tools.unseen import name_unseen

NO_IMAGE = "sha256:" + "0" * 64
MANIFEST = "tool.yaml"
_COMMENT_REACH = 40
"""Lines around an element in which the comment may be that its fault is about."""

_FILE_PLACE = re.compile(r"(?P<file>[^:\s]+(?:\.[a-z]+|/))(?::(?P<line>\d+)(?::(?P<column>\d+))?)?")
_ACCEPTED = re.compile(r"(?://|#).*\bcheck: accept (?P<codes>[A-Z_]+(?:, [A-Z_]+)*)")

Reader = Callable[[Path], object]
"""Reads a part of a bundle and raises BundleInvalid."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        place: File, line and column.
        field: As registration names it, for example "shop.v1.Orders/IssueRefund".
        message: What is wrong, without the remedy.
    """

    place: Place
    severity: Severity
    code: str
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """Write it as one line."""
        name = self.field.removeprefix(f"{MANIFEST}: ")
        what = self.message if name.startswith(self.place.file) else f"{name} {self.message}"
        return f"{self.place}: {self.severity}: {what}: {self.remedy} [{self.code}]"

    @property
    def sort_key(self) -> tuple[Place, str, str, str]:
        """By place; of the same code, place and field there is one."""
        return self.place, self.code, self.field, self.message


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A checked bundle.

    Attributes:
        faults: By file, line and column.
        version: As registration would load it; None where there is an error.
        accepted: How many warnings the author has accepted.
    """

    faults: tuple[Fault, ...]
    version: ToolVersion | None
    accepted: int

    @property
    def errors(self) -> tuple[Fault, ...]:
        """Those that registration refuses."""
        return tuple(fault for fault in self.faults if fault.severity is Severity.ERROR)


def check_bundle(folder: Path, readers: Iterable[Reader] = ()) -> Checked:
    """Check a bundle's folder by the rules of registration, and advise.

    Args:
        folder: Manifest, protos and handler.
        readers: Of the parts that other layers read.
    """
    problems: list[Violation] = []
    text = collect(problems, read_manifest_text, folder)
    descriptor_set = collect(problems, compile_protos, folder)
    files = collect(problems, read_handler, folder) or {}
    for read in readers:
        collect(problems, read, folder)
    parts = _read_parts(text, descriptor_set)
    problems.extend(parts.problems)
    if parts.manifest is not None and files:
        problems.extend(check_entry(parts.manifest, files, folder))
    version = None if problems else _build(problems, parts, descriptor_set or b"", text or "")
    problems.extend(advise(Subject(parts.registered, parts.manifest, files)))
    finder = _Finder(folder, text, descriptor_set)
    faults = {fault.sort_key: fault for fault in map(finder.find, problems)}
    kept = [faults[key] for key in sorted(faults) if not finder.is_accepted(faults[key])]
    return Checked(tuple(kept), version, len(faults) - len(kept))


def _read_parts(text: str | None, descriptor_set: bytes | None) -> Parts:
    """Read what is there; of what is missing or does not compile, that was said."""
    problems: list[Violation] = []
    if text is not None and descriptor_set is not None:
        parts = read_parts(descriptor_set, text)
        return replace(parts, problems=blame_fields(descriptor_set, parts.problems))
    manifest = None if text is None else collect(problems, read_manifest, text)
    registered = None if descriptor_set is None else collect(problems, register_set, descriptor_set)
    return Parts(manifest, registered, problems)


def _build(problems: list[Violation], parts: Parts, descriptor_set: bytes, text: str) -> ToolVersion | None:
    try:
        return build_version(parts, descriptor_set, text, NO_IMAGE)
    except BundleInvalid as error:
        problems.extend(error.violations)
        return None


class _Finder:
    """Finds the places of violations in a bundle's folder."""

    def __init__(self, folder: Path, text: str | None, descriptor_set: bytes | None) -> None:
        self._folder = folder
        self._manifest = ManifestPlaces(text or "")
        self._protos = ProtoPlaces(descriptor_set or b"")
        self._lines: dict[str, list[str]] = {}

    def find(self, violation: Violation) -> Fault:
        """Make the fault of a violation."""
        code = CODES[violation.code]
        tail = f": {violation.remedy}" if violation.remedy else ""
        return Fault(
            place=self._refine(violation, self._find_place(violation.field, code.part)),
            severity=code.severity,
            code=violation.code,
            field=violation.field,
            message=violation.description.removesuffix(tail),
            remedy=violation.remedy or code.remedy,
        )

    def is_accepted(self, fault: Fault) -> bool:
        """Tell whether the author accepts a warning, by a comment on its line."""
        if fault.severity is Severity.ERROR or not fault.place.line:
            return False  # before anything is read: the error may be that it is too large
        lines = self._read(fault.place.file)
        if fault.place.line > len(lines):
            return False
        found = _ACCEPTED.search(lines[fault.place.line - 1])
        return found is not None and fault.code in found["codes"].split(", ")

    def _find_place(self, field: str, part: str) -> Place:
        name, _, path = field.partition(": ")
        if name == MANIFEST and path:
            return self._manifest.find(path)
        element = self._protos.find(field, part)
        if element is not None:
            return element
        found = _FILE_PLACE.fullmatch(field)
        if found is None:
            return Place(self._protos.first or "proto/", 1 if self._protos.first else 0)
        return Place(found["file"], int(found["line"] or 0), int(found["column"] or 0))

    def _refine(self, violation: Violation, place: Place) -> Place:
        """Point at the very character that nobody sees; source info knows only the element."""
        if violation.code != "INVISIBLE_CHARACTERS":
            return place
        places = (
            Place(place.file, number, column)
            for number, line in enumerate(self._read(place.file), start=1)
            for column, sign in enumerate(line, start=1)
            if name_unseen(sign)
        )
        near = [each for each in places if abs(each.line - place.line) < _COMMENT_REACH]
        return min(near, key=lambda each: abs(each.line - place.line), default=place)

    def _read(self, file: str) -> list[str]:
        if file not in self._lines:
            path = self._folder / file
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            self._lines[file] = text.split("\n")
        return self._lines[file]
