"""A bundle's own dependencies: locked, fetched, importable in a sandbox, and last on Python's path."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from broker.packing import gather, read_dependencies
from sandboxes.engine import Engine
from sandboxes.image_content import LIBRARY_FOLDER
from sandboxes.images import build_bundle
from sandboxes.init_guard import guard
from sandboxes.rootfs import ImageFailed, read_base_pins
from sandboxes.syscall_filter import filter_bytes
from tests.parts.engine import OBEDIENT_HANDLER, STATE, Obedient
from tools.errors import BundleInvalid

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "tools" / "bundles" / "shop"
HASH = "0" * 64


def lock_of(package: str) -> str:
    """The package as our own lock has it."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
    found = re.search(rf"^{package}==(.*\\\n)+.*\n", text, re.MULTILINE)
    assert found is not None
    return found[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHOP, tmp_path / "shop"))


def problem_of(folder: Path, lock: str) -> str:
    (folder / "requirements.txt").write_text(lock)
    with pytest.raises(BundleInvalid) as caught:
        read_dependencies(folder)
    return str(caught.value)


def test_needs_no_lock(folder: Path) -> None:
    assert read_dependencies(folder) == ()


def test_refuses_a_lock_that_is_none_with_its_line(folder: Path) -> None:
    assert "requirements.txt:1: six has no hash" in problem_of(folder, "six==1\n")


def test_refuses_another_version_of_what_the_base_has(folder: Path) -> None:
    said = problem_of(folder, f"protobuf==3.20.0 --hash=sha256:{HASH}\n")
    assert "the base has it at" in said and "leave it out" in said


def test_leaves_out_what_the_base_has_at_that_version(folder: Path) -> None:
    (own, *_) = read_base_pins()
    (folder / "requirements.txt").write_text(f"{own.name}=={own.version} --hash=sha256:{HASH}\n")
    assert read_dependencies(folder) == ()


def test_refuses_a_lock_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "requirements.txt").symlink_to(tmp_path)
    with pytest.raises(BundleInvalid, match="plain file"):
        read_dependencies(folder)


@pytest.mark.engine
def test_puts_the_locked_wheels_into_the_image(engine: Engine, base_image: str, folder: Path) -> None:
    (folder / "requirements.txt").write_text(lock_of("idna"))
    parts = gather(folder, engine, STATE / "cache")
    assert f"{LIBRARY_FOLDER}/idna/core.py" in parts.files
    assert f"{LIBRARY_FOLDER}/idna/core.py" not in parts.source.files
    without = build_bundle(engine, parts.base_id, "shop", parts.source.files)
    assert build_bundle(engine, parts.base_id, "shop", parts.files) != without


PATHS = """
import json, sys, idna, toolcrib, google.protobuf, google.extra
from google.protobuf.internal import api_implementation
answer = json.dumps([
    sys.path, idna.__file__, toolcrib.__file__, google.protobuf.__file__, google.extra.__file__,
    json.__file__, api_implementation.Type(), idna.__cached__,
])
"""


@pytest.mark.engine
async def test_imports_dependencies_after_the_sdk_and_the_standard_library(
    engine: Engine, base_image: str, obedient: Obedient
) -> None:
    mine = {"idna/__init__.py": b"", "json/__init__.py": b"x", "google/extra.py": b"", "bad.py": b"def ("}
    files = {"handler.py": OBEDIENT_HANDLER, **{f"{LIBRARY_FOLDER}/{name}": mine[name] for name in mine}}
    image = build_bundle(engine, base_image, "library", files)
    path, idna, sdk, protobuf, extra, json, kind, cached = eval(
        await replace(obedient, image=image).answer(PATHS)
    )
    assert path[-1] == "/opt/bundle/site-packages" and path[1] == "/opt/toolcrib/lib"
    assert (idna, extra) == tuple(f"{path[-1]}/{name}" for name in ("idna/__init__.py", "google/extra.py"))
    assert all(file.startswith("/opt/toolcrib/lib/") for file in (sdk, protobuf))
    assert (json, kind) == ("/usr/lib/python3.11/json/__init__.py", "upb")
    assert cached == f"{path[-1]}/idna/__pycache__/__init__.cpython-311.pyc"


@pytest.mark.engine
async def test_has_the_syscall_filter_in_the_base(obedient: Obedient) -> None:
    program = "answer = open('/opt/toolcrib/seccomp.bpf', 'rb').read().hex()"
    assert await obedient.answer(program) == guard(filter_bytes(), os.uname().machine).hex()


@pytest.mark.engine
@pytest.mark.parametrize("name", ["toolcrib/x.py", "google/protobuf/x.py", f"{LIBRARY_FOLDER}/a.pth"])
def test_builds_no_image_that_hides_the_sdk(engine: Engine, base_image: str, name: str) -> None:
    with pytest.raises(ImageFailed, match="leave it out"):
        build_bundle(engine, base_image, "hider", {"handler.py": b"pass", name: b""})


@pytest.mark.engine
def test_builds_no_image_with_a_file_below_a_file(engine: Engine, base_image: str) -> None:
    with pytest.raises(ImageFailed, match="below what is a file"):
        build_bundle(engine, base_image, "twofold", {"handler.py": b"", "handler.py/x.py": b""})
