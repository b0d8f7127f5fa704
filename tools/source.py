"""A bundle's folder made into what is registered and what goes into its image.

    <folder>/tool.yaml      the manifest
    <folder>/proto/**       the contract; imports are relative to this folder
    <folder>/handler/**     the program; also `handler.py` alone
    <folder>/dev/**         roles and data for development; not part of the bundle

The image gets the handler's files and Python code generated from the client view.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2

from tools.client_view import client_view
from tools.descriptors import TRUSTED_FILES, find_include_folders
from tools.errors import BundleInvalid, Violation

MAX_FILES = 2_000
MAX_FILE_BYTES = 16 * 1024 * 1024
TIMEOUT_SECONDS = 60

_HANDLER = ("handler", "handler.py")
_LEFT_OUT = ("__pycache__",)
_PROTOC_ERROR = re.compile(r"^(?P<where>[^:\s]+\.proto)(?::(?P<line>\d+):(?P<column>\d+))?: (?P<what>.*)$")


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A compiled bundle.

    Attributes:
        descriptor_set: With imports and source info.
        manifest_yaml: The text of tool.yaml, unchecked: `load_version` checks it.
        files: What goes to /opt/bundle, by relative path.
    """

    descriptor_set: bytes
    manifest_yaml: str
    files: Mapping[str, bytes]


def compile_bundle(folder: Path) -> BundleSource:
    """Compile a bundle's protos and collect its files.

    Raises:
        BundleInvalid: A part is missing or does not compile; places as "proto/shop/v1/orders.proto:12:3".
    """
    manifest = folder / "tool.yaml"
    protos = sorted(path.relative_to(folder / "proto").as_posix() for path in folder.glob("proto/**/*.proto"))
    problems = list(_find_missing_parts(folder, protos))
    if problems:
        raise BundleInvalid(problems)
    try:
        text = manifest.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleInvalid([Violation("tool.yaml", f"is not UTF-8: {error}")]) from error
    with tempfile.TemporaryDirectory() as scratch:
        descriptor_set = _compile_protos(folder / "proto", protos, Path(scratch))
        files = {**_read_handler(folder), **_generate_python(descriptor_set, Path(scratch))}
    return BundleSource(descriptor_set, text, dict(sorted(files.items())))


def _find_missing_parts(folder: Path, protos: list[str]) -> Iterator[Violation]:
    if not (folder / "tool.yaml").is_file():
        yield Violation("tool.yaml", f"is missing in {folder}")
    if not protos:
        yield Violation("proto/", f"has no .proto file in {folder}")
    if not any((folder / name).exists() for name in _HANDLER):
        yield Violation("handler/", f"is missing in {folder}: put the program there")
    for name in protos:
        if name in TRUSTED_FILES:
            yield Violation(f"proto/{name}", "comes with Toolcrib: remove the copy")
        if name.partition("/")[0] in sys.stdlib_module_names:
            yield Violation(
                f"proto/{name}", "has the name of a module of Python, which hides it: rename the package"
            )


def _compile_protos(root: Path, names: list[str], scratch: Path) -> bytes:
    out = scratch / "bundle.binpb"
    includes = [f"-I{path}" for path in (".", *find_include_folders())]
    flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
    _run_protoc([*includes, *flags, *names], root)
    return _drop_foreign_source_info(out.read_bytes())


def _drop_foreign_source_info(descriptor_set: bytes) -> bytes:
    """Drop comments of files that are not the bundle's: half of the bytes, and nobody reads them here."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        if file.name in TRUSTED_FILES:
            file.ClearField("source_code_info")
    return files.SerializeToString(deterministic=True)


def _generate_python(descriptor_set: bytes, scratch: Path) -> dict[str, bytes]:
    view = client_view(descriptor_set)
    names = [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(view).file]
    source, out = scratch / "client.binpb", scratch / "python"
    source.write_bytes(view)
    out.mkdir()
    own = [name for name in names if name not in TRUSTED_FILES]
    _run_protoc([f"--descriptor_set_in={source}", f"--python_out={out}", *own], scratch)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.py")}


def _run_protoc(arguments: list[str], folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "grpc_tools.protoc", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={}, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BundleInvalid([_translate(line) for line in lines] or [Violation("proto/", "protoc failed")])


def _translate(line: str) -> Violation:
    found = _PROTOC_ERROR.match(line)
    if found is None:
        return Violation("proto/", line)
    place = f":{found['line']}:{found['column']}" if found["line"] else ""
    return Violation(f"proto/{found['where']}{place}", found["what"])


def _read_handler(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    problems: list[Violation] = []
    for path in _list_handler(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            problems.append(Violation(name, "must be a plain file: links and devices are not packed"))
        elif path.stat().st_size > MAX_FILE_BYTES:
            problems.append(Violation(name, f"is larger than {MAX_FILE_BYTES} bytes"))
        else:
            files[name] = path.read_bytes()
    if len(files) > MAX_FILES:
        problems.append(Violation("handler/", f"has more than {MAX_FILES} files"))
    if problems:
        raise BundleInvalid(problems)
    return files


def _list_handler(folder: Path) -> Iterator[Path]:
    single = folder / "handler.py"
    if single.exists():
        yield single
    for path in sorted((folder / "handler").rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _LEFT_OUT for part in parts)
        if not hidden and (path.is_symlink() or not path.is_dir()):
            yield path
