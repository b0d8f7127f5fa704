"""A bundle's folder: compiled, collected, or refused with the place of each mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.protos import HEAD, IMAGE_ID, SERVICE, write_manifest
from tools.catalogue import load_version
from tools.errors import BundleInvalid
from tools.source import compile_bundle, generate_code

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


def test_names_no_warning_beside_an_error(bundle: Path) -> None:
    (bundle / "proto/things/v1/things.proto").write_text(
        PROTO.replace("string text = 1", "strin text = 1", 1)
    )

    assert [description for _, description in refuse(bundle)] == ['"strin" is not defined.']


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


def make_program(folder: Path, mark: Path) -> None:
    """Put a program into a bundle that protoc would run as its plugin, and the options that say so."""
    program = folder / "handler/evil"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\ntouch {mark}\n")
    program.chmod(0o755)
    (folder / "handler/a.proto").write_text("--plugin=protoc-gen-evil=../handler/evil\n--evil_out=.\n")


@pytest.mark.parametrize(
    "names",
    [
        ("@../handler/a.proto",),  # protoc reads its options from the file after "@"
        ("--plugin=protoc-gen-evil=../handler/a.proto", "--evil_out=.proto"),
        ("-I.proto",),
        ("things/v1/a b.proto",),
    ],
)
def test_gives_protoc_no_file_whose_name_it_takes_for_an_option(
    bundle: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    make_program(bundle, tmp_path / "ran")
    for name in names:
        (bundle / "proto" / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / "proto" / name).write_text('syntax = "proto3";')

    found = refuse(bundle)

    assert ("is no plain relative path: name it with a-z, 0-9, _ and -" in found[0][1], len(found)) == (
        True,
        len(names),
    )
    assert not (tmp_path / "ran").exists()


def test_protoc_runs_a_program_that_a_file_name_asks_for(bundle: Path, tmp_path: Path) -> None:
    """The control: why names are looked at."""
    make_program(bundle, tmp_path / "ran")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "@../handler/a.proto"]

    subprocess.run([*command, "things.proto"], cwd=bundle / "proto", check=False, capture_output=True)
    (bundle / "proto/things.proto").write_text('syntax = "proto3"; package things.v1;')
    subprocess.run([*command, "things.proto"], cwd=bundle / "proto", check=False, capture_output=True)

    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "part", ["handler", "proto", "tool.yaml", "proto/things", "proto/things/v1/things.proto"]
)
def test_takes_no_part_from_outside_of_the_folder(bundle: Path, tmp_path: Path, part: str) -> None:
    """`handler -> ~/.ssh` would put the keys of whoever tests or registers into the image."""
    (bundle / "handler.py").write_text("print()")
    (bundle / part).rename(tmp_path / "elsewhere")
    (bundle / part).symlink_to(tmp_path / "elsewhere")

    ((field, description),) = refuse(bundle)

    assert (field.rstrip("/"), "links and devices" in description) == (part, True)


@pytest.mark.parametrize("part", ["tool.yaml", "proto/things/v1/pipe.proto"])
def test_waits_for_no_pipe(bundle: Path, part: str) -> None:
    (bundle / part).unlink(missing_ok=True)
    os.mkfifo(bundle / part)

    ((field, description),) = refuse(bundle)

    assert (field, "must be a plain file" in description) == (part, True)


def test_reads_no_manifest_that_is_too_large(bundle: Path) -> None:
    with (bundle / "tool.yaml").open("wb") as file:
        file.truncate(1 << 40)

    ((field, description),) = refuse(bundle)

    assert (field, "is larger than" in description) == ("tool.yaml", True)


def test_compiles_no_proto_that_is_too_large(bundle: Path) -> None:
    with (bundle / "proto/things/v1/more.proto").open("wb") as file:
        file.truncate(1 << 40)

    ((field, description),) = refuse(bundle)

    assert (field, "is larger than" in description) == ("proto/things/v1/more.proto", True)


@pytest.mark.parametrize("name", [b"bad\xff.py", b"new\nline.py", b"\xe2\x80\xaeyp.py"])
def test_packs_no_name_that_cannot_be_shown(bundle: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(bundle / "handler") + b"/" + name)).touch()

    ((field, description),) = refuse(bundle)

    assert (field.isprintable(), "rename it" in description) == (True, True)


def test_says_that_the_handler_has_no_file(bundle: Path) -> None:
    shutil.rmtree(bundle / "handler")
    (bundle / "handler").mkdir()

    assert [field for field, _ in refuse(bundle)] == ["handler/"]


def test_hands_protoc_no_list_without_end(bundle: Path) -> None:
    for number in range(1001):
        (bundle / f"proto/things/v1/more{number}.proto").touch()

    assert refuse(bundle) == [("proto/", "has more than 1000 files")]


@pytest.mark.parametrize("generates", [compile_bundle, generate_code])
def test_gives_protoc_no_imported_name_that_it_takes_for_an_option(
    bundle: Path, tmp_path: Path, generates: Callable[[Path], object]
) -> None:
    """An import needs no .proto at its end, and its name is in the set from which code is generated."""
    make_program(bundle, tmp_path / "ran")
    names = [f"--plugin=protoc-gen-evil={bundle / 'handler/evil'}", "--evil_out=."]
    for number, name in enumerate(names):
        (bundle / "proto" / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / "proto" / name.replace("=.", "=x")).write_text(f'syntax = "proto3"; package a{number}.v1;')
    names[1] = "--evil_out=x"
    file = bundle / "proto/things/v1/things.proto"
    imports = "".join(f'import "{name}";\n' for name in names)
    file.write_text(file.read_text().replace("package", f"{imports}package", 1))

    with pytest.raises(BundleInvalid, match="is no plain relative path"):
        generates(bundle)

    assert not (tmp_path / "ran").exists()
