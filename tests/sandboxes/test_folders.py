"""Images as folders: known by their content, finished or not there, with nothing that was not meant."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.bubblewrap_compiler import compile_folder
from sandboxes.folders import Folders, _plain, _write
from sandboxes.image_content import Entry
from sandboxes.rootfs import ImageFailed
from tests.parts.engine import STATE

HANDLER = {"handler.py": b"print('hello')\n", "site-packages/library/__init__.py": b"x = 1\n"}


@pytest.fixture(scope="module")
def elsewhere(
    bubblewrap_base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Folders, str]]:
    """A second cache with the same downloaded parts, and the id of the base that was built in it."""
    cache = tmp_path_factory.mktemp("cache")
    for part in STATE.glob("cache/*.tar"):
        (cache / part.name).symlink_to(part)
    folders = Folders(cache, compile_folder)
    yield folders, folders.build_base()


@pytest.fixture
def bundle(elsewhere) -> Iterator[str]:
    """Id of a bundle in the second cache."""
    folders, base = elsewhere
    image_id = folders.build_bundle(base, HANDLER)
    yield image_id
    if image_id in [image.image_id for image in folders.list()]:
        folders.remove(image_id)


def test_two_builds_have_the_same_id(elsewhere, bubblewrap_base, bubblewrap_folders, bundle):
    assert elsewhere[1] == bubblewrap_base
    assert bubblewrap_folders.build_bundle(bubblewrap_base, HANDLER) == bundle
    bubblewrap_folders.remove(bundle)


def test_builds_what_is_there_no_second_time(elsewhere):
    steps: list[str] = []
    folders, base = elsewhere
    assert folders.build_base(steps.append) == base and steps == []


def test_other_files_have_another_id(elsewhere, bundle):
    folders, base = elsewhere
    other = folders.build_bundle(base, HANDLER | {"handler.py": b"print('other')\n"})
    assert other != bundle
    folders.remove(other)


def test_compiles_handler_and_dependencies(elsewhere, bundle):
    content = elsewhere[0].find(bundle).bundle
    assert (content / "__pycache__/handler.cpython-311.pyc").is_file()
    assert (content / "site-packages/library/__pycache__/__init__.cpython-311.pyc").is_file()


def test_base_has_a_compiled_init_and_the_syscall_filter(elsewhere):
    root = elsewhere[0].find(elsewhere[1]).root
    assert (root / "opt/toolcrib/init.pyc").is_file() and (root / "opt/toolcrib/seccomp.bpf").is_file()


def test_everything_is_roots_and_nothing_has_a_setuid_bit(elsewhere):
    root = elsewhere[0].find(elsewhere[1]).root
    found = [path.lstat() for path in root.rglob("*")]
    assert all(entry.st_uid == entry.st_gid == 0 for entry in found)
    modes = [entry.st_mode for entry in found if not stat.S_ISLNK(entry.st_mode)]
    assert not any(mode & (stat.S_ISUID | stat.S_ISGID | 0o022) for mode in modes)


def test_only_root_can_pass_the_folder_of_images(elsewhere):
    assert stat.S_IMODE(elsewhere[0].find(elsewhere[1]).root.parents[1].stat().st_mode) == 0o700


def test_tells_a_changed_folder(elsewhere, bundle):
    folders = elsewhere[0]
    assert folders.verify(bundle)
    (folders.find(bundle).bundle / "handler.py").write_text("print('evil')\n")
    assert not folders.verify(bundle)


def test_tells_a_file_that_was_added(elsewhere, bundle):
    folders = elsewhere[0]
    (folders.find(bundle).bundle / "more.py").touch()
    assert not folders.verify(bundle)


def test_keeps_a_base_that_a_bundle_stands_on(elsewhere, bundle):
    folders, base = elsewhere
    with pytest.raises(ImageFailed, match="stands on"):
        folders.remove(base)


def test_does_not_find_what_was_removed(elsewhere, bundle):
    folders = elsewhere[0]
    folders.remove(bundle)
    with pytest.raises(ImageFailed, match="build it again"):
        folders.find(bundle)


@pytest.mark.parametrize("name", ["", "latest", "sha256:../../etc", "sha256:" + "A" * 64])
def test_refuses_what_is_no_image_id(elsewhere, name):
    with pytest.raises(ImageFailed, match="is no image id"):
        elsewhere[0].find(name)


@pytest.mark.parametrize("name", ["../x.py", "/x.py", "a/../b.py", "", "a//b.py", "x\0.py"])
def test_refuses_a_path_that_is_not_plain(elsewhere, name):
    with pytest.raises(ImageFailed, match="is no plain path"):
        elsewhere[0].build_bundle(elsewhere[1], {name: b""})


def test_refuses_a_bundle_without_files(elsewhere):
    with pytest.raises(ImageFailed, match="no handler files"):
        elsewhere[0].build_bundle(elsewhere[1], {})


def test_leaves_nothing_of_a_bundle_that_does_not_compile(elsewhere):
    folders, base = elsewhere
    place = folders.find(base).root.parents[1]
    before = sorted(place.iterdir())
    with pytest.raises(ImageFailed, match="SyntaxError"):
        folders.build_bundle(base, {"handler.py": b"def ("})
    assert sorted(place.iterdir()) == before


def test_clears_what_a_dead_builder_left(elsewhere, bundle):
    folders, base = elsewhere
    left = folders.find(base).root.parents[1] / "partial-left"
    left.mkdir()
    folders.build_bundle(base, HANDLER)
    assert not left.exists()


def test_takes_nothing_but_compiled_files_from_the_compiler(elsewhere):
    folders, base = elsewhere

    def tricked(root: Path, bundle: Path | None) -> None:
        assert bundle is not None
        (bundle / "handler.py").write_text("print('evil')\n")
        (bundle / "evil.py").touch()
        (bundle / "__pycache__").mkdir()
        (bundle / "__pycache__/handler.cpython-311.pyc").symlink_to("/etc/shadow")

    folders = Folders(folders.find(base).root.parents[2], tricked)
    image_id = folders.build_bundle(base, {"handler.py": b"print('tricked')\n"})
    content = folders.find(image_id).bundle
    assert content is not None and [path.name for path in content.iterdir()] == ["handler.py"]
    assert (content / "handler.py").read_bytes() == b"print('tricked')\n"
    folders.remove(image_id)


def test_takes_no_compiled_file_through_a_link_to_another_folder(elsewhere, tmp_path):
    folders, base = elsewhere
    (tmp_path / "handler.cpython-311.pyc").write_text("not from the compiler")

    def tricked(root: Path, bundle: Path | None) -> None:
        assert bundle is not None
        (bundle / "__pycache__").symlink_to(tmp_path)

    folders = Folders(folders.find(base).root.parents[2], tricked)
    image_id = folders.build_bundle(base, {"handler.py": b"print('linked')\n"})
    content = folders.find(image_id).bundle
    assert content is not None and [path.name for path in content.iterdir()] == ["handler.py"]
    folders.remove(image_id)


def test_an_absolute_link_means_the_image_not_the_host(tmp_path):
    tree = _plain({"lib64/ld.so": Entry(target="/lib/real.so"), "lib/real.so": Entry(b"x")})
    _write(tree, tmp_path)
    assert (tmp_path / "lib64/ld.so").readlink() == Path("../lib/real.so")
    assert (tmp_path / "lib64/ld.so").read_bytes() == b"x"


@pytest.mark.parametrize(
    "tree",
    [
        {"a": Entry(target="../../etc/shadow")},
        {"a/b": Entry(target="x/../../../etc/shadow")},
        {"a": Entry(target="/etc/shadow")},
        {"../a": Entry(b"x")},
        {"/a": Entry(b"x")},
        {"a/../../b": Entry(b"x")},
        {"a": Entry(target="b"), "a/c": Entry(b"x"), "b/d": Entry(b"x")},
        {"a": Entry(b"x"), "a/c": Entry(b"x")},
    ],
)
def test_writes_nothing_that_leads_out_or_is_below_a_link(tmp_path, tree):
    with pytest.raises(ImageFailed, match="not safe to unpack"):
        _write(tree, tmp_path / "in")
    assert list(tmp_path.rglob("*shadow*")) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"in"}


def test_writes_through_no_link_that_is_there_before(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        _write({"a": Entry(b"x")}, tmp_path / "in")
    assert not (tmp_path / "elsewhere").exists()


def test_writes_modes_whatever_the_umask_is(tmp_path):
    before = os.umask(0o077)
    try:
        _write({"usr/bin/python3": Entry(b"x", mode=0o755)}, tmp_path / "in")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "in" / name).stat().st_mode) for name in ("usr", "usr/bin/python3")]
    assert modes == [0o755, 0o755]


def test_finds_the_base_of_this_version_and_builds_none(elsewhere, tmp_path):
    folders, base = elsewhere
    assert folders.find_base() == base
    assert Folders(tmp_path, compile_folder).find_base() is None
    assert list(tmp_path.iterdir()) == []


def test_says_that_an_image_is_damaged(elsewhere, bundle):
    folders = elsewhere[0]
    notes = folders.find(bundle).bundle.parents[2] / "image.json"
    kept = notes.read_text()
    notes.write_text("{")
    with pytest.raises(ImageFailed, match="is damaged"):
        folders.find(bundle)
    notes.write_text(kept)
