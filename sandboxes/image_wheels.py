"""Wheels for images: fetched by the host's own pip, checked, and unpacked here without running any of them.

Rules:
    * pip is asked for exactly the pins, written anew by us: no line of another party's file reaches it;
    * only wheels: building a source package would run its code on the host;
    * a file counts when its name is a pin's and its SHA-256 is one of the pin's hashes, whatever pip says;
    * unpacking is ours, so that the same wheel gives the same files with any pip: plain files only, no path
      that leads out, nothing of `*.data` but what no sandbox needs (programs and headers), which is left out;
    * what a bundle brings may not take the name of a part of the SDK, nor run by itself when Python starts.

    ImageFailed          wheels could not be had; says what is missing or wrong
"""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from sandboxes.image_content import Entry, Tree, read_tree, write_layer
from sandboxes.image_requirements import Pin, normal_name
from sandboxes.outcome import SandboxError

OnStep = Callable[[str], None]

PYTHON = "3.11"
MAX_LIBRARY_BYTES = 128 * 1024 * 1024
MAX_LIBRARY_FILES = 10_000

_VERSION = "2"  # raise it when the way of unpacking changes
_FETCH_SECONDS = 600
_LEFT_OUT = ("scripts", "headers")
# What the reader raises for an archive that is broken, by chance or not.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)
_STARTS_BY_ITSELF = ("sitecustomize", "usercustomize")
# pip may not fill the disk with one file; run with -I, it imports nothing from where it is started.
_LIMITED_PIP = (
    f"import resource, runpy, sys; most = {MAX_LIBRARY_BYTES};"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)); sys.argv[0] = 'pip';"
    "runpy.run_module('pip', run_name='__main__')"
)


class ImageFailed(SandboxError):
    """An image could not be made."""


def fetch_wheels(pins: Collection[Pin], cache_dir: Path, on_step: OnStep, what: str) -> Tree:
    """Fetch and unpack wheels, or take them from the cache.

    Args:
        pins: What to fetch.
        cache_dir: Where unpacked wheels are kept, as archives.
        on_step: Told what is being done.
        what: Whose wheels, for `on_step`.

    Returns:
        Their files, by path below the folder that is to be on Python's path.

    Raises:
        ImageFailed: pip is missing or failed, or a file is not as it was locked or not safe to unpack.
    """
    if not pins:
        return {}
    key = hashlib.sha256("\n".join([_VERSION, PYTHON, *_lines(pins)]).encode()).hexdigest()[:16]
    kept = cache_dir / f"wheels-{key}.tar"
    if not kept.exists():
        on_step(f"fetching the wheels of {what}")
        with tempfile.TemporaryDirectory(prefix="toolcrib-") as name:
            _download(pins, Path(name))
            tree = unpack_wheels(pins, Path(name))
            fresh = Path(name) / "kept.tar"
            with fresh.open("wb") as file:
                write_layer(tree, file)
            keep(fresh, kept)
    with kept.open("rb") as file:
        return {name: entry for name, entry in read_tree(file).items() if not entry.is_folder}


def check_names(names: Iterable[str]) -> None:
    """Refuse files that would stand in the way of the SDK, or run by themselves.

    The SDK comes first on Python's path, so a copy of it elsewhere would not be found anyway; but `google` is
    one package in several folders, where a `google/__init__.py` anywhere hides the others.

    Args:
        names: Paths below a folder on Python's path.

    Raises:
        ImageFailed: Names the first such file.
    """
    for name in names:
        parts = PurePosixPath(name).parts
        top = parts[0].partition(".")[0]
        below = parts[1].partition(".")[0] if len(parts) > 1 else "__init__"
        if top == "toolcrib" or (parts[0].startswith("google.") and len(parts) == 1):
            raise ImageFailed(f"{name}: would stand in for the SDK: leave it out")
        if parts[0] == "google" and below in ("__init__", "protobuf", "_upb"):
            raise ImageFailed(f"{name}: would stand in for protobuf, which the base has: leave it out")
        if top in _STARTS_BY_ITSELF or (len(parts) == 1 and name.endswith(".pth")):
            raise ImageFailed(f"{name}: would run whenever Python starts: leave it out")


def keep(fresh: Path, kept: Path) -> None:
    """Put a finished file into the cache in one step: half of one must never be found there."""
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
    try:
        shutil.copyfile(fresh, partial)
        partial.rename(kept)
    finally:
        partial.unlink(missing_ok=True)


def _lines(pins: Iterable[Pin]) -> list[str]:
    return [
        " ".join(
            [f"{pin.name}=={pin.version}", *(f"--hash=sha256:{digest}" for digest in sorted(pin.hashes))]
        )
        for pin in pins
    ]


def _download(pins: Collection[Pin], folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ImageFailed(f"pip is not installed for {sys.executable}: run {sys.executable} -m ensurepip")
    lock = folder / "lock.txt"
    lock.write_text("\n".join(_lines(pins)) + "\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"]
    options += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    pip = [sys.executable, "-I", "-c", _LIMITED_PIP, "download"]
    run([*pip, *options, f"--dest={folder}", f"--requirement={lock}"], "pip", _FETCH_SECONDS)


def run(command: Sequence[str], name: str, seconds: float) -> None:
    """Run a program of the host to its end.

    Args:
        command: Program and arguments.
        name: What to call it in errors.
        seconds: The most that it may take.

    Raises:
        ImageFailed: It failed, with its last words, or took too long.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    except subprocess.CalledProcessError as error:
        last_words = (error.stderr or error.stdout or "").strip()[-800:]
        raise ImageFailed(f"{name} failed: {last_words}") from error
    except subprocess.TimeoutExpired as error:
        raise ImageFailed(f"{name} did not end within {seconds:g} s") from error


def unpack_wheels(pins: Collection[Pin], folder: Path) -> Tree:
    """Unpack a folder that holds exactly one wheel a pin.

    Raises:
        ImageFailed: One is missing, was not asked for, has another hash, or is not safe to unpack.
    """
    files: dict[str, bytes] = {}
    waiting = {pin.name: pin for pin in pins}
    for wheel in sorted(folder.glob("*.whl")):
        pin = waiting.pop(normal_name(wheel.name.partition("-")[0]), None)
        if pin is None:
            raise ImageFailed(f"{wheel.name}: was not asked for")
        data = wheel.read_bytes()
        if hashlib.sha256(data).hexdigest() not in pin.hashes:
            raise ImageFailed(f"{wheel.name}: has none of the hashes that are locked for {pin.name}")
        budget = MAX_LIBRARY_BYTES - sum(map(len, files.values()))
        unpacked = unpack(wheel, budget)
        twice = sorted(files.keys() & unpacked.keys())
        if twice:
            raise ImageFailed(f"{wheel.name}: {twice[0]}: another package has that file, too")
        files |= unpacked
        if len(files) > MAX_LIBRARY_FILES:
            raise ImageFailed(f"the packages have more than {MAX_LIBRARY_FILES} files")
    if waiting:
        raise ImageFailed(f"pip brought no wheel of {', '.join(sorted(waiting))}")
    return {name: Entry(data) for name, data in files.items()}


def unpack(wheel: Path, max_bytes: int = MAX_LIBRARY_BYTES) -> dict[str, bytes]:
    """Read the files of a wheel that an image gets, by path.

    Args:
        wheel: The file.
        max_bytes: The most that its files may be in all; counted while reading, whatever it says of itself.

    Raises:
        ImageFailed: It is no wheel, too large, or has what could get out of its folder.
    """
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.is_dir() or _is_left_out(wheel.name, member):
                    continue
                if member.filename in files:
                    raise ImageFailed(f"{wheel.name}: {member.filename!r} stands in it twice")
                with archive.open(member) as file:
                    data = file.read(max_bytes + 1)
                max_bytes -= len(data)
                if max_bytes < 0 or len(files) >= MAX_LIBRARY_FILES:
                    raise ImageFailed(f"{wheel.name}: is too large: {MAX_LIBRARY_BYTES} bytes are the most")
                files[member.filename] = data
    except _BROKEN as error:
        raise ImageFailed(f"{wheel.name}: cannot be unpacked: {error}") from error
    return files


def _is_left_out(wheel: str, member: zipfile.ZipInfo) -> bool:
    """Check a member's path and kind; true for programs and headers, which no sandbox needs."""
    name = member.filename
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ImageFailed(f"{wheel}: {name!r} is no plain path inside of it")
    if re.search(r"[\\\x00-\x1f\x7f]", name):
        raise ImageFailed(f"{wheel}: {name!r} has a character that no path in a wheel has")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ImageFailed(f"{wheel}: {name!r} is no plain file")
    if not path.parts[0].endswith(".data"):
        return False
    if len(path.parts) > 2 and path.parts[1] in _LEFT_OUT:
        return True
    raise ImageFailed(f"{wheel}: {name!r} would be put outside of the package's own folder")
