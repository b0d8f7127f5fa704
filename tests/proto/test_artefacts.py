"""The files that a handler may give back: regular ones of one folder, and nothing that leads out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolcrib.handler.artefacts import ArtefactInvalid, make_folder, read_artefact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    return Path(make_folder(str(tmp_path / "artefacts")))


def test_reads_a_file_of_the_folder(folder: Path) -> None:
    (folder / "a.txt").write_text("hello")
    assert read_artefact("a.txt", str(folder)) == b"hello"


def test_does_not_follow_a_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    with pytest.raises(ArtefactInvalid, match="cannot be read"):
        read_artefact("link", str(folder))


def test_does_not_take_a_second_name_of_another_file(folder: Path) -> None:
    os.link(folder.parent / "secret", folder / "twin")
    with pytest.raises(ArtefactInvalid, match="another name"):
        read_artefact("twin", str(folder))


def test_does_not_wait_for_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArtefactInvalid, match="no regular file"):
        read_artefact("pipe", str(folder))


def test_does_not_take_a_folder_that_is_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").symlink_to(folder.parent)
    with pytest.raises(ArtefactInvalid):
        read_artefact("secret", str(folder.parent / "elsewhere"))


def test_does_not_take_what_is_mostly_holes(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArtefactInvalid, match="holes"):
        read_artefact("sparse", str(folder))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".", "..", "", "a/b", "a\0b", "no-such"])
def test_does_not_take_another_name(folder: Path, name: str) -> None:
    with pytest.raises(ArtefactInvalid):
        read_artefact(name, str(folder))
