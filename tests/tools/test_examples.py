"""Examples: how they are read, and when a result is what they want."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.errors import BundleInvalid
from tools.examples import compare, fits, read_examples

GOOD = "- {name: one, method: a.v1.A/B, result: {x: 1}}\n"


def read(tmp_path: Path, text: str):
    (tmp_path / "examples").mkdir(parents=True, exist_ok=True)
    (tmp_path / "examples" / "a.yaml").write_text(text)
    return read_examples(tmp_path)


def find_faults(tmp_path: Path, text: str) -> str:
    with pytest.raises(BundleInvalid) as caught:
        read(tmp_path, text)
    return "\n".join(f"{fault.field}: {fault.description}" for fault in caught.value.violations)


def test_reads_examples_with_their_file(tmp_path: Path):
    (example,) = read(tmp_path, GOOD)
    assert (example.file, example.name, example.result) == ("examples/a.yaml", "one", {"x": 1})


def test_finds_none_where_there_are_none(tmp_path: Path):
    assert read_examples(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- {name: one, method: m}", "say one of result, result_includes, failure, violations; it says none"),
        (GOOD.replace("result", "failure: {code: X}, result"), "it says result and failure"),
        ("- {name: one, method: m, reslt: {}}", "examples/a.yaml: one: reslt: is no field of an example"),
        ("- {name: one, method: m, reslt: {}}", "did you mean result?"),
        ("- {name: one, method: m, violations: [], violations: [x]}", "the key 'violations' stands twice"),
        ("- {name: one, method: m, violations: [], [a]: b}", "is not valid YAML"),
        (f"- {{name: one, method: m, violations: [], request: {{x: {'1:' * 5000}1}}}}", "4300 digits"),
        ("- {method: m, violations: [x]}", "examples/a.yaml: example 1: name"),
        ("one: two", "must be a list of examples"),
        ("- &x {name: one}\n- *x\n", "examples/a.yaml:2: is not valid YAML: aliases are not allowed"),
        ("#" * 2**20 + "#", "must be a plain file of at most"),
        ("- just text", "examples/a.yaml: example 1: must be a mapping"),
        ("- {name: [}", "examples/a.yaml:1: is not valid YAML"),
        (GOOD.replace("1}", "{$matches: '('}}"), "is no regular expression"),
        (GOOD.replace("1}", "{$like: x}}"), "$like: a matcher is one of $matches, $contains, $any"),
        (GOOD.replace("1}", "{$any: 1, y: 2}}"), "alone in its mapping"),
        ("- {name: one, method: m, violations: [], targets: {t: {fake: ../x.py}}}", "targets.t.fake"),
        (
            "- {name: one, method: m, violations: [], targets: {t: {fake: examples/a/../../x.py}}}",
            "stay within",
        ),
    ],
)
def test_says_what_is_wrong_with_an_example(tmp_path: Path, text: str, fault: str):
    assert fault in find_faults(tmp_path, text)


def test_names_every_fault_at_once(tmp_path: Path):
    faults = find_faults(tmp_path, "- {name: one, method: m}\n- {name: two, method: m}\n")
    assert ("one" in faults, "two" in faults) == (True, True)


def test_keeps_a_date_a_text(tmp_path: Path):
    (example,) = read(tmp_path, "- {name: one, method: m, result: {day: 2026-01-02}}\n")
    assert example.result == {"day": "2026-01-02"}


@pytest.mark.parametrize(
    ("wanted", "got", "whole", "expected"),
    [
        ({"a": 1}, {"a": 1}, True, True),
        ({"a": 1}, {"a": 1, "b": 2}, True, False),
        ({"a": 1}, {"a": 1, "b": 2}, False, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False, True),
        ({"a": [1, 2]}, {"a": [1]}, False, False),
        ({"a": 1}, {"a": True}, True, False),
        ({"a": "1"}, {"a": 1}, True, False),
        ({"a": {"$matches": "N-[0-9]+"}}, {"a": "N-12"}, True, True),
        ({"a": {"$matches": "N-[0-9]+"}}, {"a": "xN-12"}, True, False),
        ({"a": {"$contains": "b"}}, {"a": "abc"}, True, True),
        ({"a": {"$any": True}}, {"a": None}, True, True),
        ({"a": {"$any": True}}, {}, True, False),
    ],
)
def test_tells_whether_a_result_fits(wanted: object, got: object, whole: bool, expected: bool):
    assert fits(wanted, got, whole=whole) is expected
    assert (compare(wanted, got, whole=whole) == "") is expected  # type: ignore[arg-type]


def test_shows_only_what_differs():
    shown = compare({"a": {"$any": True}, "b": 1}, {"a": "long", "b": 2, "c": 3}, whole=False)
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert lines == ['-  "b": 1', '+  "b": 2']


def test_matches_in_linear_time(tmp_path: Path):
    """An author's pattern must not stop the machine of whoever tests the bundle."""
    pattern = "(a+)+$"
    (example,) = read(tmp_path, GOOD.replace("1}", f"{{$matches: '{pattern}'}}}}"))
    assert not fits(example.result, {"x": "a" * 5_000 + "b"}, whole=True)
    assert fits(example.result, {"x": "a" * 5_000}, whole=True)


def test_waits_for_no_pipe(tmp_path: Path):
    (tmp_path / "examples").mkdir()
    os.mkfifo(tmp_path / "examples" / "a.yaml")
    with pytest.raises(BundleInvalid, match="must be a plain file"):
        read_examples(tmp_path)


def test_reads_no_examples_of_another_folder(tmp_path: Path):
    read(tmp_path / "elsewhere", GOOD)
    (tmp_path / "examples").symlink_to(tmp_path / "elsewhere" / "examples")
    with pytest.raises(BundleInvalid, match="must be a plain folder"):
        read_examples(tmp_path)
