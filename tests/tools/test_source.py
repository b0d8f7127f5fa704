"""A bundle's folder: compiled, collected, or refused with the place of each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.protos import HEAD, IMAGE_ID, SERVICE, write_manifest
from tools.catalogue import load_version
from tools.errors import BundleInvalid
from tools.source import compile_bundle

PROTO = (
    HEAD.replace("test.v1", "things.v1")
    + SERVICE
    + "message Request { string text = 1; }\nmessage Response { string text = 1; }\n"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name, text in {
        "proto/things/v1/things.proto": PROTO,
        "tool.yaml": write_manifest("things.v1.Things/Do"),
        "handler/__init__.py": "",
        "handler/data/words.txt": "one",
        "handler/__pycache__/x.pyc": "",
        "handler/.secret": "",
        "dev/roles.toml": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def refuse(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(BundleInvalid) as caught:
        compile_bundle(folder)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_gives_what_registration_takes(bundle: Path) -> None:
    source = compile_bundle(bundle)

    assert load_version(source.descriptor_set, source.manifest_yaml, IMAGE_ID).bundle == "things"


def test_packs_the_handler_and_generated_code_and_nothing_else(bundle: Path) -> None:
    assert list(compile_bundle(bundle).files) == [
        "handler/__init__.py", "handler/data/words.txt", "things/v1/things_pb2.py",
    ]  # fmt: skip


def test_packs_a_handler_of_one_file(bundle: Path) -> None:
    (bundle / "handler.py").write_text("print()")

    assert compile_bundle(bundle).files["handler.py"] == b"print()"


def test_generates_code_that_imports_nothing_of_ours(bundle: Path, tmp_path: Path) -> None:
    for name, content in compile_bundle(bundle).files.items():
        (tmp_path / "image" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "image" / name).write_bytes(content)
    program = (
        "import sys; from things.v1 import things_pb2; things_pb2.Request(text='a'); "
        "assert not any(name.startswith(('toolcrib', 'buf')) for name in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "image", check=True)


def test_gives_the_same_bytes_each_time(bundle: Path) -> None:
    assert compile_bundle(bundle) == compile_bundle(bundle)


def test_names_file_line_and_column_of_each_error(bundle: Path) -> None:
    (bundle / "proto/things/v1/things.proto").write_text(
        'syntax = "proto3";\npackage a.v1;\nmessage M {\n  strin a = 1;\n}\n'
    )

    assert refuse(bundle) == [("proto/things/v1/things.proto:4:3", '"strin" is not defined.')]


def test_names_an_import_that_is_not_there(bundle: Path) -> None:
    (bundle / "proto/things/v1/things.proto").write_text('syntax = "proto3";\nimport "gone/v1/gone.proto";\n')

    assert ("proto/gone/v1/gone.proto", "File not found.") in refuse(bundle)


def test_names_a_clash_between_two_files(bundle: Path) -> None:
    (bundle / "proto/things/v1/again.proto").write_text(PROTO)

    found = refuse(bundle)

    assert any("is already defined in file" in description for _, description in found)


@pytest.mark.parametrize(
    ("gone", "field"), [("tool.yaml", "tool.yaml"), ("handler", "handler/"), ("proto", "proto/")]
)
def test_names_a_part_that_is_missing(bundle: Path, gone: str, field: str) -> None:
    (bundle / gone).rename(bundle / "elsewhere")

    ((found, description),) = refuse(bundle)

    assert found == field
    assert str(bundle) in description


def test_names_every_missing_part_of_an_empty_folder(tmp_path: Path) -> None:
    assert [field for field, _ in refuse(tmp_path)] == ["tool.yaml", "proto/", "handler/"]


def test_refuses_a_link_out_of_the_folder(bundle: Path) -> None:
    (bundle / "handler/passwd").symlink_to("/etc/passwd")

    assert refuse(bundle) == [("handler/passwd", "must be a plain file: links and devices are not packed")]


def test_refuses_a_copy_of_our_option_files(bundle: Path) -> None:
    (bundle / "proto/toolcrib/v1").mkdir(parents=True)
    (bundle / "proto/toolcrib/v1/options.proto").write_text('syntax = "proto3";')

    assert ("proto/toolcrib/v1/options.proto", "comes with Toolcrib: remove the copy") in refuse(bundle)


def test_refuses_a_package_that_python_hides(bundle: Path) -> None:
    (bundle / "proto/things").rename(bundle / "proto/email")

    ((field, description),) = refuse(bundle)

    assert field == "proto/email/v1/things.proto"
    assert "has the name of a module of Python" in description


def test_refuses_a_manifest_that_is_not_text(bundle: Path) -> None:
    (bundle / "tool.yaml").write_bytes(b"\xff")

    ((field, _),) = refuse(bundle)

    assert field == "tool.yaml"
