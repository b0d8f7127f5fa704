"""How the command line speaks: tables that fit, JSON that parses, nothing that a terminal would obey."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from broker.cli import main
from broker.cli.output import CommandFailed, Commands, output_option, show, show_one, table, to_json

ROWS = [
    {"id": "c" * 26, "what": "a long description " * 5, "state": "SUCCEEDED"},
    {"id": "d" * 26, "what": "short", "state": "FAILED"},
]


def test_cuts_the_widest_column_until_a_table_fits():
    assert max(len(line) for line in table(ROWS, 80)) <= 80


def test_keeps_whole_what_other_commands_take():
    lines = list(table(ROWS, 30, {"id", "state"}))
    assert lines[1].startswith("c" * 26)
    assert lines[1].endswith("SUCCEEDED")


def test_prints_rows_as_json(capsys):
    show(ROWS, "json", empty="none")
    assert json.loads(capsys.readouterr().out) == ROWS


def test_says_on_stderr_that_a_table_is_empty(capsys):
    show([], "table", empty="no calls")
    assert capsys.readouterr() == ("", "no calls\n")


def test_prints_an_empty_list_as_json(capsys):
    show([], "json", empty="no calls")
    assert json.loads(capsys.readouterr().out) == []


def test_sends_no_escape_sequence_to_the_terminal(capsys):
    evil = "a\x1b[2Jb\u202ec\u009bd"
    show([{"name": evil}], "table", empty="")
    show_one({"name": evil, "other": "one\ntwo"}, "table")
    printed = capsys.readouterr().out
    assert all(sign.isprintable() or sign == "\n" for sign in printed)


def test_escapes_json_without_changing_what_it_says():
    value = {"text": "ü \u202e \U000e0041 \x1b \u009b"}
    assert json.loads(to_json(value)) == value
    assert "\u202e" not in to_json(value)
    assert "ü" in to_json(value)


@click.command()
@output_option
def fails(form: str) -> None:
    raise CommandFailed("no such thing", 3, details={"reason": "TOOL_UNKNOWN"})


def test_sends_no_escape_sequence_to_the_terminal_in_an_error(capsys):
    CommandFailed("TOOL_FAILED: \x1b]0;pwned\x07 \u202e\nnext line", 1).show()
    printed = capsys.readouterr().err
    assert all(sign.isprintable() or sign == "\n" for sign in printed)
    assert printed.endswith("\nnext line\n")


def test_prints_an_error_as_text_with_its_exit_code():
    result = CliRunner().invoke(fails, [])
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "Error: no such thing\n")


def test_prints_an_error_as_json_where_json_was_asked_for():
    result = CliRunner().invoke(fails, ["-o", "json"])
    error = json.loads(result.stderr)["error"]
    assert error == {"message": "no such thing", "reason": "TOOL_UNKNOWN", "exit_code": 3}


def test_answers_an_interrupt_with_130():
    @click.group(cls=Commands)
    def group() -> None: ...

    @group.command()
    def wait() -> None:
        raise KeyboardInterrupt

    assert CliRunner().invoke(group, ["wait"]).exit_code == 130


def _walk(command: click.Command | None, path: tuple[str, ...] = ()):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from _walk(command.get_command(context, name), (*path, name))


def test_helps_in_80_columns_with_every_command():
    for path in _walk(main):
        result = CliRunner().invoke(main, [*path, "--help"], terminal_width=80)
        assert result.exit_code == 0
        assert max(len(line) for line in result.stdout.splitlines()) <= 80, path


def test_completes_in_each_shell():
    for shell in ("zsh", "fish", "bash"):
        result = CliRunner().invoke(main, ["completion", shell])
        assert "_TOOLCRIB_COMPLETE" in result.stdout


def test_wraps_what_is_wider_than_the_terminal_and_cuts_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_one({"note": "one two three four five six seven eight", "id": "x" * 60}, "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["note  one two three four five six seven", "      eight", f"id    {'x' * 60}"]
