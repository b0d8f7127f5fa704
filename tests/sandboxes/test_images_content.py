"""The digest of a file system, and that two builds of the same parts have the same one."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import uuid
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from sandboxes.image_content import (
    Content,
    Entry,
    Tree,
    as_file,
    files_below,
    read_tree,
    sum_up,
    write_layer,
)
from sandboxes.image_store import inspect, sum_up_image
from sandboxes.images import build_bundle, make_base_layer
from tests.parts.engine import STATE

TREE: Tree = {
    "etc/passwd": Entry(b"root"),
    "usr/bin/tool": Entry(b"#!", mode=0o755),
    "lib": Entry(target="usr/lib"),
    "opt/bundle/handler.py": Entry(b"pass"),
}


def archive_of(tree: Tree) -> bytes:
    target = io.BytesIO()
    write_layer(tree, target)
    return target.getvalue()


def content_of(tree: Tree) -> Content:
    return sum_up(io.BytesIO(archive_of(tree)))


def test_writes_the_same_bytes_whatever_the_order() -> None:
    assert archive_of(TREE) == archive_of(dict(reversed(TREE.items())))


def test_writes_every_folder_above_an_entry() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_of(TREE))) as archive:
        assert {"etc", "usr", "usr/bin", "opt", "opt/bundle"} <= set(archive.getnames())
        assert {(m.mtime, m.uid, m.gid) for m in archive.getmembers()} == {(0, 0, 0)}


def test_reads_what_it_wrote() -> None:
    read = read_tree(io.BytesIO(archive_of(TREE)))
    assert {name: read[name].data for name in TREE} == {name: item.data for name, item in TREE.items()}
    assert (read["lib"].target, read["usr/bin/tool"].mode, read["etc"].is_folder) == ("usr/lib", 0o755, True)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("etc/passwd", Entry(b"toor")),
        ("etc/passwd", Entry(b"root", mode=0o4755)),
        ("etc/passwd", Entry(target="root")),
        ("lib", Entry(target="usr/lib32")),
        ("etc/shadow", Entry(b"")),
        ("etc/empty", Entry(mode=0o755, is_folder=True)),
    ],
)
def test_sums_up_to_something_else_when_the_base_changed(name: str, changed: Entry) -> None:
    other = content_of({**TREE, name: changed})
    assert other.base != content_of(TREE).base
    assert other.bundle == content_of(TREE).bundle


def test_tells_a_changed_bundle_from_a_changed_base() -> None:
    other = content_of({**TREE, "opt/bundle/more.py": Entry(b"")})
    assert other.base == content_of(TREE).base
    assert other.bundle != content_of(TREE).bundle


def test_sees_an_owner_a_device_and_a_capability() -> None:
    digests = set()
    for change in ({}, {"uid": 7}, {"type": tarfile.CHRTYPE}, {"pax_headers": {"SCHILY.xattr.x": "cap"}}):
        member = tarfile.TarInfo("x")
        for name, value in change.items():
            setattr(member, name, value)
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(member)
        digests.add(sum_up(io.BytesIO(target.getvalue())).base)
    assert len(digests) == 4


def test_leaves_times_and_the_engines_own_places_out() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in ("x", ".dockerenv", "etc/hosts"):
            member = tarfile.TarInfo(name)
            member.mtime = 77
            archive.addfile(member)
    assert sum_up(io.BytesIO(target.getvalue())) == content_of({"x": Entry()})


def test_cannot_be_misled_by_names_that_run_together() -> None:
    one = content_of({"x": Entry(target="y/0:0")})
    assert one != content_of({"x/y": Entry(target="0:0")})


def test_reads_a_stream_in_chunks_of_any_size() -> None:
    data = os.urandom(300_000)
    chunks = [data[:1], b"", data[1:200_000], data[200_000:]]
    assert as_file(chunks).read() == data


# --- on the engine ------------------------------------------------------------------------------------------
def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.engine
def test_builds_the_same_base_twice(engine: Engine, base_image: str, tmp_path: Path) -> None:
    """Everything is made anew but the packages, which come out of the first build's cache."""
    for part in (STATE / "cache").glob("debian-*.tar"):
        shutil.copy(part, tmp_path)
    first, second = make_base_layer(engine, STATE / "cache"), make_base_layer(engine, tmp_path)
    assert first != second
    assert digest_of(first) == digest_of(second)


@pytest.mark.engine
def test_builds_the_same_bundle_twice(engine: Engine, base_image: str) -> None:
    text = f"x = {{'{uuid.uuid4()}', 'b', 'c'}}\ndef f(): return 'a', frozenset(x)\n"
    files = {"handler.py": text.encode(), "site-packages/six.py": text.encode()}
    first = build_bundle(engine, base_image, "twice", files)
    engine.client.remove_image(first)
    second = build_bundle(engine, base_image, "twice", files)
    engine.client.remove_image(second)
    assert first == second


@pytest.mark.engine
def test_labels_images_with_what_they_sum_up_to(engine: Engine, base_image: str, obedient_image: str) -> None:
    for image_id in (base_image, obedient_image):
        image = inspect(engine, image_id)
        assert image is not None and image.kind != "foreign"
        assert sum_up_image(engine, image_id) == image.content


def test_puts_files_below_a_folder() -> None:
    assert list(files_below("opt/bundle", {"a/b.py": b""})) == ["opt/bundle/a/b.py"]


def test_lets_only_programs_be_started() -> None:
    names = ("handler/bin/tool", "handler/main.py", "bin/tool", "site-packages/handler/bin/tool")
    tree = files_below("opt/bundle", dict.fromkeys(names, b""))
    assert [tree[f"opt/bundle/{name}"].mode for name in names] == [0o755, 0o644, 0o644, 0o644]
