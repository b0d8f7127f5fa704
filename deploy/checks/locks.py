"""Check that requirements/ locks everything: pinned, hashed, complete, from no named host.

Rules:
1. Each line of a lock pins one version and has a SHA-256; options (an index, a host) are refused.
2. What a .in file wants is in its lock, at a version that satisfies it.
3. What both dev and broker lock, they lock at the same version: we test what we ship.
4. What pyproject.toml needs is what requirements/*.in ask for.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "requirements"
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)( ;.*)?( --hash=sha256:[0-9a-f]{64})+")


def read_lines(path: Path) -> Iterator[str]:
    """Yield logical lines: continuations joined, comments and empty lines left out."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def read_wanted(name: str) -> list[Requirement]:
    """Read a .in file and those that it includes."""
    wanted = []
    for line in read_lines(FOLDER / f"{name}.in"):
        if line.startswith("-r "):
            wanted += read_wanted(Path(line[3:]).stem)
        else:
            wanted.append(Requirement(line))
    return wanted


def read_lock(name: str, errors: list[str]) -> dict[str, str]:
    """Read a lock as {name: version} and note what breaks rule 1."""
    locked: dict[str, str] = {}
    for line in read_lines(FOLDER / f"{name}.txt"):
        if match := PIN.fullmatch(line):
            locked[canonicalize_name(match["name"])] = match["version"]
        else:
            errors.append(f"requirements/{name}.txt: not a pinned and hashed package: {line[:60]}")
    return locked


def check_wanted(name: str, locked: dict[str, str]) -> Iterator[str]:
    """Check rule 2."""
    for wanted in read_wanted(name):
        version = locked.get(canonicalize_name(wanted.name))
        if version is None or version not in wanted.specifier:
            yield f"requirements/{name}.txt: {wanted} is wanted, {version or 'nothing'} is locked"


def check_same(locks: dict[str, dict[str, str]]) -> Iterator[str]:
    """Check rule 3."""
    for package, version in locks["broker"].items():
        if (tested := locks["dev"].get(package)) != version:
            yield f"requirements: {package} is {version} in broker.txt but {tested} in dev.txt"


def check_projects() -> Iterator[str]:
    """Check rule 4."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {
        "broker": project["dependencies"],
        "dev": [*project["dependencies"], *project["optional-dependencies"]["dev"]],
    }
    for name, lines in needs.items():
        declared = {canonicalize_name(Requirement(line).name) for line in lines} - {"toolcrib"}
        asked = {canonicalize_name(wanted.name) for wanted in read_wanted(name)}
        for package in sorted(declared - asked):
            yield f"pyproject.toml: {package} is needed but not in requirements/{name}.in"
        if name == "broker":
            for package in sorted(asked - declared):
                yield f"requirements/broker.in: {package} is not a dependency in pyproject.toml"


def main() -> int:
    """Print what is broken; 1 when anything is."""
    errors: list[str] = []
    locks = {path.stem: read_lock(path.stem, errors) for path in sorted(FOLDER.glob("*.txt"))}
    for name, locked in locks.items():
        errors += check_wanted(name, locked)
    errors += [*check_same(locks), *check_projects()]
    for error in errors:
        print(f"error: {error}. Run: make lock", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
