"""`check` finds each fault at its line, and what it calls an error is not registered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli import main
from broker.errors import Refused
from broker.packing import gather, read_dependencies
from tests.tools.check.breaks import DESK, ERRORS, WARNINGS, Break, break_bundle, find_line
from tests.tools.check.registry import Registration
from tools.check import Checked, check_bundle
from tools.codes import CODES, Severity
from tools.errors import BundleInvalid

ROOT = Path(__file__).parents[3]
PACKING = ("HANDLER_ENTRY", "LOCK_INVALID")
"""Found where the image is packed: what the broker gets of it is an id."""


def check(folder: Path) -> Checked:
    return check_bundle(folder, [read_dependencies])


def assert_found(checked: Checked, case: Break, folder: Path) -> None:
    found = [fault for fault in checked.faults if fault.code == case.code]
    lines = [(fault.place.file, fault.place.line) for fault in found]
    assert (case.where or case.file, find_line(case, folder)) in lines, [str(f) for f in checked.faults]
    assert all(fault.message and fault.remedy for fault in found)


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS.keys())
async def test_names_an_error_at_its_line_and_registers_nothing(case: Break, tmp_path: Path) -> None:
    folder = break_bundle(case, tmp_path / "desk")
    checked = check(folder)
    assert_found(checked, case, folder)
    assert checked.version is None
    registration = Registration()
    if case.code in PACKING:
        with pytest.raises(BundleInvalid):
            gather(folder, tmp_path / "images", tmp_path / "cache")
    else:
        with pytest.raises((BundleInvalid, Refused)):
            await registration.register(folder)
    assert await registration.versions() == []


@pytest.mark.parametrize("case", WARNINGS.values(), ids=WARNINGS.keys())
def test_warns_at_the_line(case: Break, tmp_path: Path) -> None:
    folder = break_bundle(case, tmp_path / "desk")
    checked = check(folder)
    assert_found(checked, case, folder)
    assert CODES[case.code].severity is Severity.WARNING
    assert checked.version is not None, [str(fault) for fault in checked.errors]


async def test_registers_the_bundle_that_they_were_made_of() -> None:
    registration = Registration()
    await registration.register(DESK)
    assert [row.version for row in await registration.versions()] == ["1.0.0"]
    assert check(DESK).faults == ()


@pytest.mark.parametrize("name", ["shop", "git"])
def test_finds_nothing_wrong_with_a_bundle_of_ours(name: str) -> None:
    assert [str(fault) for fault in check(ROOT / "tools" / "bundles" / name).faults] == []


def test_tells_every_fault_of_every_file_at_once(tmp_path: Path) -> None:
    names = ("a scope with a space", "no effect", "a comment with tags", "too little memory", "no deadline")
    folder = break_bundle(ERRORS[names[0]], tmp_path / "desk")
    for name in names[1:]:
        case = ERRORS[name]
        path = folder / case.file
        path.write_text(path.read_text().replace(case.old, case.new, 1))
    (folder / "requirements.txt").write_text("requests==2.0\n")
    found = {fault.code for fault in check(folder).faults}
    assert {"SCOPE", "INVISIBLE_CHARACTERS", "MANIFEST_VALUE", "MANIFEST_MISSING", "LOCK_INVALID"} <= found


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["tools", "check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_takes_advice_for_errors_when_it_is_strict(tmp_path: Path) -> None:
    folder = break_bundle(WARNINGS["a string without a bound"], tmp_path / "desk")
    assert (run(folder)[0], run(folder, "--strict")[0]) == (0, 3)


def test_shows_a_fault_in_one_line(tmp_path: Path) -> None:
    folder = break_bundle(ERRORS["no effect"], tmp_path / "desk")
    code, _, shown = run(folder)
    place = "proto/desk/v1/desk.proto:13:5: error: desk.v1.Desk/LookupTicket"
    wanted = f"{place} has no effect: set READ, DRAFT or WRITE [EFFECT]"
    assert code == 3
    assert wanted in shown.splitlines()


def test_gives_programs_a_list(tmp_path: Path) -> None:
    folder = break_bundle(WARNINGS["a long deadline"], tmp_path / "desk")
    code, out, _ = run(folder, "-o", "json")
    assert code == 0
    assert [sorted(fault) for fault in json.loads(out)] == [
        ["code", "column", "field", "file", "line", "message", "remedy", "severity"]
    ]


def test_leaves_out_what_the_author_accepts(tmp_path: Path) -> None:
    folder = break_bundle(WARNINGS["a string without a bound"], tmp_path / "desk")
    path = folder / "proto/desk/v1/desk.proto"
    path.write_text(path.read_text().replace("words = 2;", "words = 2; // check: accept STRING_UNBOUNDED"))
    checked = check(folder)
    assert (checked.faults, checked.accepted) == ((), 1)


def test_accepts_no_error(tmp_path: Path) -> None:
    folder = break_bundle(ERRORS["too little memory"], tmp_path / "desk")
    path = folder / "tool.yaml"
    path.write_text(path.read_text().replace("memory_mib: 1", "memory_mib: 1 # check: accept MANIFEST_VALUE"))
    assert check(folder).errors


def test_breaks_every_code_that_a_folder_can_show() -> None:
    """What is not here is what protoc writes for nobody: tests/tools/test_crafted_descriptors.py has it."""
    advice = {name for name, code in CODES.items() if code.severity is Severity.WARNING}
    assert advice == {case.code for case in WARNINGS.values()}
    assert len(ERRORS) >= 40
