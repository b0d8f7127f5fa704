"""The lock of a bundle's dependencies: pins and hashes are read, all else is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxes.image_requirements import MAX_BYTES, read_requirements
from tools.errors import BundleInvalid

ONE, OTHER = "a" * 64, "b" * 64
LOCKS = Path(__file__).parents[2] / "requirements"


def problems_of(text: str) -> list[tuple[str, str]]:
    with pytest.raises(BundleInvalid) as caught:
        read_requirements(text)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_reads_what_uv_and_pip_compile_write() -> None:
    hashes = f"    --hash=sha256:{ONE} \\\n    --hash=sha256:{OTHER}\n"
    text = f"# made by uv\n\nSix_er==1.2.3 \\\n{hashes}    # via x\n"
    (pin,) = read_requirements(text)
    assert (pin.name, pin.version, pin.hashes) == ("six-er", "1.2.3", frozenset({ONE, OTHER}))


def test_reads_lines_that_end_as_on_windows_and_a_file_without_a_last_newline() -> None:
    (pin,) = read_requirements(f"six==1 \\\r\n  --hash=sha256:{ONE}")
    assert (pin.name, pin.version) == ("six", "1")


def test_reads_extras_because_what_they_want_is_locked_too() -> None:
    assert read_requirements(f"coverage[toml]==7.1 --hash=sha256:{ONE}")[0].name == "coverage"


@pytest.mark.parametrize("name", ["image", "broker", "dev"])
def test_reads_our_own_locks(name: str) -> None:
    assert len(read_requirements((LOCKS / f"{name}.txt").read_text())) >= 2


def test_takes_an_empty_lock_for_no_dependencies() -> None:
    assert read_requirements("# nothing\n") == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-e .", "editable"),
        ("--editable git+https://host.invalid/x", "editable"),
        ("--index-url https://host.invalid/simple", "where to fetch from"),
        ("-i https://host.invalid/simple", "where to fetch from"),
        ("--extra-index-url=https://host.invalid", "where to fetch from"),
        ("--find-links /tmp", "where to fetch from"),
        ("-f /tmp", "where to fetch from"),
        ("--trusted-host host.invalid", "where to fetch from"),
        ("-r other.txt", "another file"),
        ("-c other.txt", "another file"),
        ("--pre", "is an option"),
        ("--no-binary :all:", "is an option"),
        ("--config-settings=x=y", "is an option"),
        ("git+https://host.invalid/x@main", "version control"),
        ("https://host.invalid/x-1-py3-none-any.whl", "address"),
        ("x @ https://host.invalid/x-1-py3-none-any.whl", "address"),
        ("x@file:///tmp/x.whl", "address"),
        ("file:///tmp/x.whl", "address"),
        ("./x-1-py3-none-any.whl", "path"),
        ("/tmp/x-1-py3-none-any.whl", "path"),
        ("${HOME}/x.whl", "variable"),
        ("x", "no exact version"),
        ("x>=1", "no exact version"),
        ("x===1", "no exact version"),
        ("x==1.*", "no exact version"),
        ("x==1,==2", "no exact version"),
        ("x==1", "has no hash"),
        ("x==1 ; python_version > '3'", "condition"),
        ("x==1 --hash=md5:abc", "is no --hash=sha256"),
        ("x==1 --hash=sha256:abc", "is no --hash=sha256"),
        (f"x==1 --hash=sha256:{ONE} --global-option=x", "is no --hash=sha256"),
        (f"x==1 --hash=sha256:{ONE} -e .", "is no --hash=sha256"),
    ],
)
def test_refuses_what_no_hash_covers_and_says_where(line: str, reason: str) -> None:
    ((place, said),) = problems_of(f"# first\n{line}\n")
    assert place == "requirements.txt:2"
    assert reason in said


def test_names_every_bad_line_at_once() -> None:
    places = [place for place, _ in problems_of("-e .\nsix==1\n\nx==1 \\\n  --pre\n")]
    assert places == ["requirements.txt:1", "requirements.txt:2", "requirements.txt:4"]


def test_refuses_one_package_twice_under_two_spellings() -> None:
    ((place, said),) = problems_of(f"a_b==1 --hash=sha256:{ONE}\nA-B==2 --hash=sha256:{ONE}\n")
    assert (place, "second time" in said) == ("requirements.txt:2", True)


def test_sees_an_option_behind_a_line_that_goes_on() -> None:
    ((_, said),) = problems_of(f"six==1 --hash=sha256:{ONE} \\\n--index-url https://host.invalid\n")
    assert "--index-url" in said


def test_refuses_a_lock_without_end() -> None:
    assert "larger than" in problems_of("#" * (MAX_BYTES + 1))[0][1]
