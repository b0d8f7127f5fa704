"""Wheels for images: fetched as locked, unpacked so that nothing gets out of its folder or hides the SDK."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandboxes.image_requirements import Pin
from sandboxes.image_wheels import ImageFailed, check_names, fetch_wheels, unpack, unpack_wheels
from sandboxes.rootfs import read_base_pins


def say_nothing(step: str) -> None:
    """Progress for nobody."""


def no_step(step: str) -> None:
    pytest.fail(f"fetched again: {step}")


def write_wheel(path: Path, files: Mapping[str, bytes] | Mapping[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def pin_of(wheel: Path, name: str = "six") -> Pin:
    return Pin(name, "1", frozenset({hashlib.sha256(wheel.read_bytes()).hexdigest()}))


def entry(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def test_fetches_what_is_locked_once(tmp_path: Path) -> None:
    steps: list[str] = []
    first = fetch_wheels(read_base_pins(), tmp_path, steps.append, "the test")
    assert "google/protobuf/message.py" in first and steps == ["fetching the wheels of the test"]
    assert fetch_wheels(read_base_pins(), tmp_path, no_step, "the test") == first


def test_keeps_nothing_when_the_index_has_other_bytes(tmp_path: Path) -> None:
    pins = [Pin(pin.name, pin.version, frozenset({"0" * 64})) for pin in read_base_pins()]
    with pytest.raises(ImageFailed, match="pip failed"):
        fetch_wheels(pins, tmp_path / "cache", say_nothing, "the test")
    assert not list(tmp_path.glob("cache/*"))


def test_takes_the_wheel_that_is_locked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "six-1-py3-none-any.whl", {"six.py": b"x = 1", "six/data.txt": b"y"})
    tree = unpack_wheels([pin_of(wheel)], tmp_path)
    assert {name: item.data for name, item in tree.items()} == {"six.py": b"x = 1", "six/data.txt": b"y"}


def test_refuses_a_wheel_with_another_hash_whatever_pip_says(tmp_path: Path) -> None:
    write_wheel(tmp_path / "six-1-py3-none-any.whl", {"six.py": b"x = 1"})
    with pytest.raises(ImageFailed, match="none of the hashes"):
        unpack_wheels([Pin("six", "1", frozenset({"0" * 64}))], tmp_path)


def test_refuses_a_wheel_that_was_not_asked_for(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "other-1-py3-none-any.whl", {"six.py": b""})
    with pytest.raises(ImageFailed, match="not asked for"):
        unpack_wheels([pin_of(wheel)], tmp_path)


def test_misses_a_wheel_that_did_not_come(tmp_path: Path) -> None:
    with pytest.raises(ImageFailed, match="no wheel of six"):
        unpack_wheels([Pin("six", "1", frozenset({"0" * 64}))], tmp_path)


def test_refuses_two_packages_with_one_file(tmp_path: Path) -> None:
    pins = [
        pin_of(write_wheel(tmp_path / f"{name}-1-py3-none-any.whl", {"same.py": b""}), name)
        for name in ("one", "two")
    ]
    with pytest.raises(ImageFailed, match="another package has that file"):
        unpack_wheels(pins, tmp_path)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "./x", "a\\..\\x", "a\nb"])
def test_refuses_a_path_that_leads_out_or_is_odd(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageFailed, match="no plain path|no path in a wheel"):
        unpack(write_wheel(tmp_path / "x.whl", {name: b""}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_refuses_a_link_and_whatever_is_no_file(tmp_path: Path, kind: int) -> None:
    with pytest.raises(ImageFailed, match="no plain file"):
        unpack(write_wheel(tmp_path / "x.whl", {entry("x", kind): b"/etc/passwd"}))


def test_leaves_programs_and_headers_out(tmp_path: Path) -> None:
    files = {"x-1.data/scripts/x": b"#!", "x-1.data/headers/x.h": b"", "x.py": b""}
    assert list(unpack(write_wheel(tmp_path / "x.whl", files))) == ["x.py"]


@pytest.mark.parametrize("place", ["data/etc/x", "purelib/toolcrib/x.py", "platlib/x.py", "scripts"])
def test_refuses_what_would_go_elsewhere(tmp_path: Path, place: str) -> None:
    with pytest.raises(ImageFailed, match="outside of the package's own folder"):
        unpack(write_wheel(tmp_path / "x.whl", {f"x-1.data/{place}": b""}))


def test_stops_at_its_budget_whatever_the_wheel_says_of_itself(tmp_path: Path) -> None:
    with pytest.raises(ImageFailed, match="too large"):
        unpack(write_wheel(tmp_path / "x.whl", {"a.py": b"x" * 700, "b.py": b"x" * 400}), max_bytes=1000)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_says_that_a_wheel_is_broken(tmp_path: Path, method: int) -> None:
    wheel = tmp_path / "six-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", method) as archive:
        archive.writestr("six.py", b"hello" * 500)
    data = bytearray(wheel.read_bytes())
    data[45:60] = bytes([255] * 15)
    wheel.write_bytes(data)
    with pytest.raises(ImageFailed, match="cannot be unpacked"):
        unpack(wheel)


@pytest.mark.parametrize("name", [b"\xff\xff.py", b"\0\0\0\0\0"])
def test_says_that_a_name_in_a_wheel_is_broken(tmp_path: Path, name: bytes) -> None:
    wheel = write_wheel(tmp_path / "six-1-py3-none-any.whl", {"\u00e9.py": b"x"})
    wheel.write_bytes(wheel.read_bytes().replace("\u00e9.py".encode(), name))
    with pytest.raises(ImageFailed, match="cannot be unpacked"):
        unpack(wheel)


def test_refuses_a_name_that_stands_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        wheel = write_wheel(
            tmp_path / "x.whl", {zipfile.ZipInfo("x.py"): b"1", zipfile.ZipInfo("x.py"): b"2"}
        )
    with pytest.raises(ImageFailed, match="twice"):
        unpack(wheel)


def test_refuses_what_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"not a zip")
    with pytest.raises(ImageFailed, match="cannot be unpacked"):
        unpack(tmp_path / "x.whl")


@pytest.mark.parametrize(
    "name",
    [
        "toolcrib/handler/__init__.py",
        "toolcrib.py",
        "toolcrib.cpython-311-x86_64-linux-gnu.so",
        "google.py",
        "google/__init__.py",
        "google/protobuf/message.py",
        "google/_upb/_message.abi3.so",
        "evil.pth",
        "sitecustomize.py",
        "usercustomize/__init__.py",
    ],
)
def test_refuses_what_would_hide_the_sdk_or_run_by_itself(name: str) -> None:
    with pytest.raises(ImageFailed, match="leave it out"):
        check_names(["fine/x.py", name])


def test_lets_other_parts_of_shared_packages_pass() -> None:
    check_names(["google/rpc/status_pb2.py", "google_auth-1.dist-info/METADATA", "a/b.pth", "toolcribs/x.py"])
