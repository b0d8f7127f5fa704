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
from tools.errors import BundleInvalid, Violation, breach, collect
from tools.manifest import MAX_MANIFEST_BYTES

MAX_FILES = 2_000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_BYTES = 256 * 1024 * 1024
"""Of all files of a handler."""
MAX_PROTOS = 1_000
MAX_PROTO_BYTES = 4 * 1024 * 1024
TIMEOUT_SECONDS = 60

_HANDLER = ("handler", "handler.py")
_LEFT_OUT = ("__pycache__",)
_PROTO_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_-]*\.proto")
"""No name begins with "-" or "@": protoc would take it for an option, and one of those runs a program."""
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
    problems: list[Violation] = []
    text = collect(problems, read_manifest_text, folder)
    descriptor_set = collect(problems, compile_protos, folder)
    files = collect(problems, read_handler, folder)
    if text is None or descriptor_set is None or files is None:
        raise BundleInvalid(problems)
    with tempfile.TemporaryDirectory() as scratch:
        files |= _generate_python(descriptor_set, Path(scratch))
    return BundleSource(descriptor_set, text, dict(sorted(files.items())))


def read_manifest_text(folder: Path) -> str:
    """Read the text of tool.yaml, unchecked.

    Raises:
        BundleInvalid: It is not there, or no text.
    """
    manifest = folder / "tool.yaml"
    if not manifest.exists() and not manifest.is_symlink():
        raise BundleInvalid([breach("PART_MISSING", "tool.yaml", f"is missing in {folder}")])
    problems = list(_find_unfit(manifest, "tool.yaml", MAX_MANIFEST_BYTES))
    if problems:
        raise BundleInvalid(problems)
    try:
        return manifest.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleInvalid([breach("NOT_TEXT", "tool.yaml", f"is not UTF-8: {error}")]) from error


def _find_unfit(path: Path, name: str, most_bytes: int) -> Iterator[Violation]:
    """Tell why a file is not read: a link leads out of the folder, a pipe has no end."""
    if not name.isprintable():
        yield breach("FILE_NAME", ascii(name), "has characters that cannot be shown", "rename it")
    elif path.is_symlink() or not path.is_file():
        yield breach("FILE_KIND", name, "must be a plain file", "links and devices are not packed")
    elif path.stat().st_size > most_bytes:
        yield breach("FILE_TOO_LARGE", name, f"is larger than {most_bytes} bytes")


def _find_linked(folder: Path, part: str) -> Iterator[Violation]:
    """Tell that a part is a link: what is elsewhere would be packed, another one's secrets for example."""
    if (folder / part).is_symlink():
        yield breach("FILE_KIND", f"{part}/", "must be a plain folder", "links and devices are not packed")


def compile_protos(folder: Path) -> bytes:
    """Compile a bundle's protos into a descriptor set with imports and source info.

    Raises:
        BundleInvalid: There are none, they do not compile, or one has a name that it must not have.
    """
    problems = list(_find_linked(folder, "proto"))
    names = [] if problems else list(_list_protos(folder / "proto"))
    problems = problems or [problem for name in names for problem in _find_misnamed(folder / "proto", name)]
    if not names and not problems:
        problems = [breach("PART_MISSING", "proto/", f"has no .proto file in {folder}")]
    elif len(names) > MAX_PROTOS:
        problems = [breach("FILE_TOO_LARGE", "proto/", f"has more than {MAX_PROTOS} files")]
    if problems:
        raise BundleInvalid(problems)
    with tempfile.TemporaryDirectory() as scratch:
        return _run_descriptor_compiler(folder / "proto", names, Path(scratch))


def _list_protos(root: Path) -> Iterator[str]:
    """Name the protos, and every link, by relative path; what is hidden is no part of a bundle."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and (path.is_symlink() or (path.suffix == ".proto" and not path.is_dir())):
            yield name.as_posix()


def _find_misnamed(root: Path, name: str) -> Iterator[Violation]:
    yield from _find_unfit(root / name, f"proto/{name}", MAX_PROTO_BYTES)
    if not (root / name).is_symlink():
        yield from _find_odd_name(name)
    if name in TRUSTED_FILES:
        yield breach("TRUSTED_COPY", f"proto/{name}", "comes with Toolcrib", "remove the copy")
    if name.partition("/")[0] in sys.stdlib_module_names:
        problem = "has the name of a module of Python, which hides it"
        yield breach("MODULE_HIDDEN", f"proto/{name}", problem, "rename the package")


def _find_odd_name(name: str) -> Iterator[Violation]:
    if not _PROTO_NAME.fullmatch(name):
        problem = "is no plain relative path"
        yield breach("FILE_NAME", f"proto/{name}", problem, "name it with a-z, 0-9, _ and -, and .proto")


def _run_descriptor_compiler(root: Path, names: list[str], scratch: Path) -> bytes:
    out = scratch / "bundle.binpb"
    includes = [f"-I{path}" for path in (".", *find_include_folders())]
    flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
    _run_protoc([*includes, *flags, *names], root)
    descriptor_set = out.read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    # What is imported needs no ".proto" at its end: those were not seen in the folder.
    problems = [problem for file in files for problem in _find_odd_name(file.name)]
    if problems:
        raise BundleInvalid(problems)
    return _drop_foreign_source_info(descriptor_set)


def _drop_foreign_source_info(descriptor_set: bytes) -> bytes:
    """Drop comments of files that are not the bundle's: half of the bytes, and nobody reads them here."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        if file.name in TRUSTED_FILES:
            file.ClearField("source_code_info")
    return files.SerializeToString(deterministic=True)


def generate_code(folder: Path) -> dict[str, bytes]:
    """Generate the Python code of a bundle's contract, as its image has it, by relative path.

    Raises:
        BundleInvalid: As for `compile_protos`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _generate_python(compile_protos(folder), Path(scratch))


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
    try:
        done = subprocess.run(
            command, cwd=folder, env={}, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        problem = f"protoc did not end within {TIMEOUT_SECONDS} s"
        raise BundleInvalid([breach("PROTO_INVALID", "proto/", problem)]) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and ": warning: " not in line]
        raise BundleInvalid(
            [_translate(line) for line in lines] or [breach("PROTO_INVALID", "proto/", "protoc failed")]
        )


def _translate(line: str) -> Violation:
    found = _PROTOC_ERROR.match(line)
    if found is None:
        return breach("PROTO_INVALID", "proto/", line)
    place = f":{found['line']}:{found['column']}" if found["line"] else ""
    return breach("PROTO_INVALID", f"proto/{found['where']}{place}", found["what"])


def read_handler(folder: Path) -> dict[str, bytes]:
    """Read a bundle's program, by relative path.

    Raises:
        BundleInvalid: It is not there, or a file of it cannot be packed.
    """
    if not any((folder / name).exists() for name in _HANDLER):
        problem = breach("PART_MISSING", "handler/", f"is missing in {folder}", "put the program there")
        raise BundleInvalid([problem])
    problems = list(_find_linked(folder, "handler"))
    paths = [] if problems else list(_list_handler(folder))
    if not paths and not problems:
        problems.append(
            breach("PART_MISSING", "handler/", f"has no file in {folder}", "put the program there")
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    for path, name in zip(paths, names, strict=True):
        problems.extend(_find_unfit(path, name, MAX_FILE_BYTES))
    if len(paths) > MAX_FILES:
        problems.append(breach("FILE_TOO_LARGE", "handler/", f"has more than {MAX_FILES} files"))
    elif not problems and sum(path.stat().st_size for path in paths) > MAX_BYTES:
        problems.append(breach("FILE_TOO_LARGE", "handler/", f"has more than {MAX_BYTES} bytes"))
    if problems:
        raise BundleInvalid(problems)
    return {name: path.read_bytes() for path, name in zip(paths, names, strict=True)}


def _list_handler(folder: Path) -> Iterator[Path]:
    single = folder / "handler.py"
    if single.exists():
        yield single
    for path in sorted((folder / "handler").rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _LEFT_OUT for part in parts)
        if not hidden and (path.is_symlink() or not path.is_dir()):
            yield path
