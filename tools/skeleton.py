"""A new bundle's first files: small, complete, and ones that `check` finds nothing wrong with.

The templates lie in `skeletons/`, a folder for each kind. In their text and their names
`@package@`, `@bundle@`, `@Service@` and `@role@` stand for what the bundle is called.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.errors import BundleInvalid, Violation

KINDS = ("read", "write")
TEMPLATES = Path(__file__).parent / "skeletons"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,54}")
"""Some names in the files are eight characters longer, and none may have more than 63."""
_RESERVED = frozenset({"toolcrib", "grpc", "google", "buf"})
_TAKEN = frozenset({"handler", "site-packages", "site_packages", "asyncpg", "proto", "examples"})
_SUFFIX = ".template"


def plan_bundle(name: str, kind: str) -> Mapping[str, str]:
    """Write the files of a new bundle, by their paths in its folder.

    Args:
        name: Of the bundle; its package is the same with "_" for "-", and "v1".
        kind: "read": one tool that only answers; "write": one that changes a target, with its probe.

    Raises:
        BundleInvalid: It cannot be called that.
    """
    _check_name(name)
    package = name.replace("-", "_")
    service = "".join(part.capitalize() for part in package.split("_"))
    role = package.replace("_", "-")
    names = {"@package@": package, "@bundle@": name, "@Service@": service, "@role@": role}
    root = TEMPLATES / kind
    return {
        _fill(file.relative_to(root).as_posix(), names).removesuffix(_SUFFIX): _fill(file.read_text(), names)
        for file in sorted(root.rglob(f"*{_SUFFIX}"))
    }


def write_bundle(files: Mapping[str, str], folder: Path) -> None:
    """Write a new bundle's files into a folder that is not there yet, or is empty.

    Raises:
        BundleInvalid: Something is there: nothing is ever overwritten.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise BundleInvalid([Violation(str(folder), "is there already: name another folder with --dir")])
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)


def _check_name(name: str) -> None:
    problem = _find_problem(name)
    if problem:
        raise BundleInvalid([Violation(f'name "{name}"', problem)])


def _find_problem(name: str) -> str:
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or not all(package.split("_")):
        return 'must be lower-case words of a-z and 0-9 with single "-" or "_" between them, up to 55 in all'
    if any(not part[0].isalpha() for part in package.split("_")):
        return "every word of it must begin with a letter: the service is named after them"
    if package in _RESERVED or package.partition("_")[0] == "toolcrib":
        return f"is reserved: {', '.join(sorted(_RESERVED))} are the broker's own"
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        return "is a word of Python, which could not import its package: choose another"
    if package in sys.stdlib_module_names or package in _TAKEN:
        return "is the name of a module that a handler has already: choose another"
    return ""


def _fill(text: str, names: Mapping[str, str]) -> str:
    for mark, value in names.items():
        text = text.replace(mark, value)
    return text
