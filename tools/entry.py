"""Whether the bundle has the program that its manifest starts; asked before an image is built in vain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.errors import Violation, breach
from tools.manifest import Manifest

ROOT = "/opt/bundle/"
"""Where the bundle's files are in its container; its working folder."""
LOCK = "requirements.txt"

_PLACE = "tool.yaml: image.command"
_PYTHON = ("python", "python3", "/usr/bin/python3")


def check_entry(manifest: Manifest, files: Mapping[str, bytes], folder: Path) -> Iterator[Violation]:
    """Yield what the command names and the bundle has not.

    Args:
        manifest: With the command.
        files: The bundle's program, by relative path.
        folder: A module may also come with the packages that `requirements.txt` in it locks.
    """
    command = manifest.image.command
    module = _find_module(command)
    if module and not _has_module(module, files) and not (folder / LOCK).exists():
        path = module.replace(".", "/")
        remedy = f"add {path}/__main__.py, or name what there is"
        yield breach("HANDLER_ENTRY", _PLACE, f"starts the module {module}, which the bundle has not", remedy)
    for argument in command:
        path = _find_path(argument)
        if path and path not in files:
            yield breach("HANDLER_ENTRY", _PLACE, f"names {argument}, which the bundle has not")


def _find_module(command: tuple[str, ...]) -> str:
    if command[0] not in _PYTHON or "-m" not in command[:-1]:
        return ""
    return command[command.index("-m") + 1]


def _has_module(module: str, files: Mapping[str, bytes]) -> bool:
    path = module.replace(".", "/")
    return f"{path}/__main__.py" in files or f"{path}.py" in files


def _find_path(argument: str) -> str:
    """Return the path of a bundle's file that an argument is; empty where it is something else."""
    path = argument.removeprefix(ROOT).removeprefix("./")
    return path if path.startswith("handler/") or path != argument else ""
