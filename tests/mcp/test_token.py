"""The token file of HTTP clients."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from toolcrib.mcp.options import OptionInvalid
from toolcrib.mcp.token import read_token

TOKEN = "t" * 40


def lay(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_makes_a_token_that_its_owner_alone_reads(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = read_token(path)
    assert len(token) >= 40 and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keeps_the_token_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert read_token(path) == read_token(path)


def test_reads_a_token_that_somebody_wrote(tmp_path: Path) -> None:
    assert read_token(lay(tmp_path / "token", f"{TOKEN}\n")) == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_refuses_a_file_that_others_read(tmp_path: Path, mode: int) -> None:
    with pytest.raises(OptionInvalid, match="chmod 600"):
        read_token(lay(tmp_path / "token", TOKEN, mode))


@pytest.mark.parametrize("text", ["", "\n", "short", "two words of a long enough length to pass", "x" * 31])
def test_refuses_what_could_be_guessed(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionInvalid, match="at least 32"):
        read_token(lay(tmp_path / "token", text))


def test_writes_through_no_link(tmp_path: Path) -> None:
    """A link in a folder that others write would have the token put where they read it."""
    target = tmp_path / "theirs"
    (tmp_path / "token").symlink_to(target)
    with pytest.raises(OptionInvalid):
        read_token(tmp_path / "token")
    assert not target.exists()


def test_names_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="cannot be written"):
        read_token(tmp_path / "no" / "token")


def test_waits_for_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token", 0o600)
    with pytest.raises(OptionInvalid):
        read_token(tmp_path / "token")
