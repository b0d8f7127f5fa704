"""New bundles: what they may be called, and that nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.errors import BundleInvalid
from tools.manifest import read_manifest
from tools.skeleton import KINDS, plan_bundle, write_bundle


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Greeter", "lower-case words"),
        ("2fast", "lower-case words"),
        ("a--b", "lower-case words"),
        ("a-", "lower-case words"),
        ("a/b", "lower-case words"),
        ("../up", "lower-case words"),
        ("x" * 56, "lower-case words"),
        ("a-2b", "begin with a letter"),
        ("class", "a word of Python"),
        ("match", "a word of Python"),
        ("google", "is reserved"),
        ("toolcrib-more", "is reserved"),
        ("json", "a module"),
        ("handler", "a module"),
    ],
)
def test_refuses_names_that_cannot_work(name: str, fault: str):
    with pytest.raises(BundleInvalid, match=fault):
        plan_bundle(name, "read")


@pytest.mark.parametrize("kind", KINDS)
def test_writes_names_that_a_manifest_can_have_from_the_longest_that_it_takes(kind: str):
    assert read_manifest(plan_bundle("x" * 55, kind)["tool.yaml"])


def test_a_dash_becomes_an_underscore_in_the_package():
    files = plan_bundle("price-list", "read")
    assert "package price_list.v1;" in files["proto/price_list/v1/price_list.proto"]
    assert "bundle: price-list" in files["tool.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_no_mark_of_a_template(kind: str):
    files = plan_bundle("price-list", kind)
    assert not [name for name, text in files.items() if "@package@" in text or "@" in name]
    assert not [name for name in files if name.endswith(".template")]


def test_overwrites_nothing(tmp_path: Path):
    (tmp_path / "tool.yaml").write_text("mine")
    with pytest.raises(BundleInvalid, match="is there already"):
        write_bundle(plan_bundle("greeter", "read"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tool.yaml"]


def test_follows_no_link(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    with pytest.raises(BundleInvalid, match="is there already"):
        write_bundle(plan_bundle("greeter", "read"), tmp_path / "link")
    assert list(elsewhere.iterdir()) == []
