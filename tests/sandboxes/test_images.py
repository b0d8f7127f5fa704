"""The base image and the images of bundles: made once, found again, refused with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from sandboxes.images import build_base, build_bundle
from sandboxes.rootfs import EXTRAS, ImageFailed, content_key
from tests.parts.engine import OBEDIENT_HANDLER, STATE, Obedient

pytestmark = pytest.mark.engine


def _no_step(step: str) -> None:
    pytest.fail(f"built again: {step}")


def test_does_not_build_the_base_again(engine: Engine, base_image: str) -> None:
    assert build_base(engine, STATE / "cache", _no_step) == base_image


def test_finds_the_base_though_bundles_inherit_its_label(
    engine: Engine, base_image: str, tmp_path: Path
) -> None:
    build_bundle(engine, base_image, "heir", {"handler.py": b"pass"})
    assert build_base(engine, tmp_path, _no_step) == base_image


@pytest.fixture
def hidden_base(engine: Engine, base_image: str) -> Iterator[str]:
    """The base image without its name; it keeps another, so that no test beside this one loses it."""
    client, name = engine.client, f"toolcrib/base:{content_key()[:16]}"
    client.tag(base_image, "toolcrib-test/hidden")
    client.remove_image(name, noprune=True)
    yield base_image
    client.tag(base_image, *name.split(":"), force=True)
    client.remove_image("toolcrib-test/hidden", noprune=True)


def test_gets_the_base_from_the_kept_archive(engine: Engine, hidden_base: str) -> None:
    steps: list[str] = []
    again = build_base(engine, STATE / "cache", steps.append)
    assert again == hidden_base
    assert steps == ["importing the base image"]


def test_does_not_build_a_bundle_again(engine: Engine, base_image: str) -> None:
    files = {"handler.py": b"pass", "shop/v1/orders_pb2.py": b"pass"}
    assert build_bundle(engine, base_image, "twice", files) == build_bundle(
        engine, base_image, "twice", files
    )


@pytest.mark.parametrize("bundle", ["odd-", "odd__", "o-_-d", "x"])
def test_builds_a_bundle_of_every_name_that_a_manifest_allows(
    engine: Engine, base_image: str, bundle: str
) -> None:
    assert build_bundle(engine, base_image, bundle, {"handler.py": b"pass"}).startswith("sha256:")


def test_builds_another_image_for_other_files(engine: Engine, base_image: str) -> None:
    one = build_bundle(engine, base_image, "bundle", {"handler.py": b"pass"})
    assert build_bundle(engine, base_image, "bundle", {"handler.py": b"pass "}) != one


def test_names_the_file_that_does_not_compile(engine: Engine, base_image: str) -> None:
    with pytest.raises(ImageFailed, match=r"handler\.py"):
        build_bundle(engine, base_image, "broken", {"handler.py": b"def ("})


@pytest.mark.parametrize("name", ["/handler.py", "../handler.py", "a/../../b.py", "a//b.py", ".", "x\0y"])
def test_refuses_a_path_outside_the_bundle(engine: Engine, base_image: str, name: str) -> None:
    with pytest.raises(ImageFailed, match="no plain path"):
        build_bundle(engine, base_image, "escape", {name: b"pass"})


def test_refuses_a_bundle_without_files(engine: Engine, base_image: str) -> None:
    with pytest.raises(ImageFailed, match="no handler files"):
        build_bundle(engine, base_image, "empty", {})


def test_refuses_an_unknown_base(engine: Engine) -> None:
    with pytest.raises(ImageFailed, match="does not have the base image"):
        build_bundle(engine, "sha256:" + "0" * 64, "homeless", {"handler.py": b"pass"})


async def test_has_everything_byte_compiled(obedient: Obedient) -> None:
    program = """
import pathlib
answer = []
for root in ("/usr/lib/python3.11", "/opt/toolcrib/lib", "/opt/bundle"):
    for file in pathlib.Path(root).rglob("*.py"):
        if not (file.parent / "__pycache__" / f"{file.stem}.cpython-311.pyc").exists():
            answer.append(str(file))
"""
    assert await obedient.answer(program) == "[]"


async def test_has_no_shell_and_no_setuid_program(obedient: Obedient) -> None:
    program = """
import os
answer = [name for name in ("/bin/sh", "/bin/bash", "/usr/bin/dpkg", "/usr/bin/apt") if os.path.exists(name)]
for folder, _, names in os.walk("/usr"):
    answer += [name for name in names if os.lstat(os.path.join(folder, name)).st_mode & 0o6000]
"""
    assert await obedient.answer(program) == "[]"


async def test_has_what_a_handler_needs(obedient: Obedient) -> None:
    program = """
import asyncio, asyncpg, decimal, json, ssl, sqlite3, uuid, zoneinfo
from google.protobuf.internal import api_implementation
answer = api_implementation.Type()
"""
    assert await obedient.answer(program) == "upb"


async def test_has_the_python_that_it_was_built_for(obedient: Obedient) -> None:
    assert await obedient.answer("import sys; answer = sys.version_info[:2]") == "(3, 11)"
    assert sys.version_info >= (3, 11)


# --- a base with more in it ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def full_image(engine: Engine) -> str:
    """The obedient tool on a base with every extra."""
    base = build_base(engine, STATE / "cache", extras=EXTRAS)
    return build_bundle(engine, base, "obedient-full", {"handler.py": OBEDIENT_HANDLER})


def test_makes_another_base_for_each_combination_of_extras() -> None:
    combinations: list[tuple[str, ...]] = [(), ("git",), ("git", "openssh-client"), tuple(EXTRAS)]
    assert len({content_key(extras) for extras in combinations}) == 4
    assert content_key(("git", "openssh-client")) == content_key(("openssh-client", "git", "git"))


def test_does_not_build_a_base_with_extras_again(engine: Engine, full_image: str, base_image: str) -> None:
    again = build_base(engine, STATE / "cache", _no_step, EXTRAS)
    assert again != base_image


@pytest.mark.parametrize("name", ["bash", "git ", "../git", "perl"])
def test_puts_nothing_in_that_is_not_listed(engine: Engine, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageFailed, match="is not one that an image may have"):
        build_base(engine, tmp_path, _no_step, (name,))


LOOK = """
import os
folders = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/lib/git-core", "/usr/lib/openssh")
programs = {name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
answer = sorted(name for name in programs if not name.startswith("python3"))
"""


async def test_has_the_programs_that_were_asked_for_and_no_others(
    obedient: Obedient, full_image: str
) -> None:
    assert await obedient.answer(LOOK) == "[]"
    assert await replace(obedient, image=full_image).answer(LOOK) == "['busybox', 'git', 'ssh']"


NAMED = """
import glob, os, pathlib, subprocess
def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return (done.stdout + done.stderr).split(",")[0].split(" ")[0:2]
(library,) = glob.glob("/usr/lib/*/libnss_wrapper.so")
pathlib.Path("/tmp/passwd").write_text(f"tool:x:{os.getuid()}:{os.getgid()}::/tmp:/x\\n")
pathlib.Path("/tmp/group").touch()
wrapper = {"NSS_WRAPPER_PASSWD": "/tmp/passwd", "NSS_WRAPPER_GROUP": "/tmp/group"}
answer = [run("git", "--version"), run("ssh", "-V"), run("ssh", "-V", LD_PRELOAD=library, **wrapper)]
"""


async def test_runs_openssh_where_the_user_has_a_name(obedient: Obedient, full_image: str) -> None:
    git, nameless, named = eval(await replace(obedient, image=full_image).answer(NAMED))
    assert (git, nameless) == (["git", "version"], ["No", "user"])
    assert named[0].startswith("OpenSSH_")


STARTED = """
import subprocess
def run(name):
    try:
        return subprocess.run([f"/opt/bundle/handler/{name}"], capture_output=True, text=True).stdout
    except PermissionError:
        return "denied"
answer = [run("bin/tool"), run("tool")]
"""


async def test_starts_the_programs_of_a_bundle_and_none_of_its_other_files(
    engine: Engine, obedient: Obedient, base_image: str
) -> None:
    program = b"#!/usr/bin/python3\nprint('started', end='')\n"
    files = {"handler/__main__.py": OBEDIENT_HANDLER, "handler/bin/tool": program, "handler/tool": program}
    image = build_bundle(engine, base_image, "programs", files)
    assert await replace(obedient, image=image).answer(STARTED) == "['started', 'denied']"
