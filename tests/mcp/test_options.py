"""What an MCP server refuses to be started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolcrib.mcp.options import OptionInvalid, ServeOptions, parse_address


@pytest.mark.parametrize("text", ["127.0.0.1:8765", "localhost:1", "[::1]:0", "127.0.0.9:80"])
def test_takes_a_loopback_address(text: str, tmp_path: Path) -> None:
    ServeOptions(profile=tmp_path, http=parse_address(text)).check()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_takes_no_timeout_that_is_none(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="seconds over 0"):
        ServeOptions(profile=tmp_path, timeout_seconds=seconds).check()


@pytest.mark.parametrize("text", ["", "8765", "host.example:80", "127.0.0.1", "127.0.0.1:x", "1.2.3.4:70000"])
def test_names_the_right_form_of_an_address(text: str) -> None:
    with pytest.raises(OptionInvalid, match=r"port"):
        parse_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "192.0.2.1:1", "[::ffff:10.0.0.1]:1"])
def test_refuses_an_address_that_others_reach(text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="allow-remote"):
        ServeOptions(profile=tmp_path, http=parse_address(text)).check()


def test_wants_a_token_file_where_others_reach_it(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="http-token-file"):
        ServeOptions(profile=tmp_path, http=parse_address("0.0.0.0:1"), allow_remote=True).check()


def test_serves_others_when_told_to_with_a_token_file(tmp_path: Path) -> None:
    address = parse_address("0.0.0.0:1")
    ServeOptions(
        profile=tmp_path, http=address, allow_remote=True, http_token_file=tmp_path / "token"
    ).check()


def test_names_a_profile_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="no such profile"):
        ServeOptions(profile=tmp_path / "nobody").check()
