"""The broker's errors in words, and the way to it."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from broker.cli import main
from broker.cli.calling import read_json
from broker.cli.connection import explain
from broker.cli.grants import read_files
from broker.cli.output import CommandFailed
from broker.client import read_profile
from broker.settings import SettingsInvalid

VIOLATION = {"field": "order_id", "description": "is too short"}


class Status(grpc.RpcError):
    """What gRPC raises for a status with details."""

    def __init__(self, code: grpc.StatusCode, text: str, *details: Message, **trailers: str | bytes) -> None:
        rich = status_pb2.Status()
        for detail in details:
            packed = Any()
            packed.Pack(detail)
            rich.details.append(packed)
        self._code, self._text = code, text
        self._trailers = {"grpc-status-details-bin": rich.SerializeToString()}
        self._trailers |= {name.replace("_", "-"): value for name, value in trailers.items()}

    def code(self):
        return self._code

    def details(self):
        return self._text

    def trailing_metadata(self):
        return tuple(self._trailers.items())


def refused(**trailers: str | bytes) -> Status:
    info = error_details_pb2.ErrorInfo(reason="REQUEST_INVALID", domain="toolcrib")
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(**VIOLATION)
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    return Status(grpc.StatusCode.INVALID_ARGUMENT, "no good", info, bad, retry, **trailers)


def test_says_reason_violations_patience_and_call():
    failed = explain(refused(toolcrib_call_id="c1"))
    assert failed.message.splitlines() == [
        "REQUEST_INVALID: no good",
        "  order_id: is too short",
        "  retry after 1.5 s",
        "  call c1",
    ]
    assert failed.exit_code == 1


def test_tells_programs_the_same():
    details = explain(refused(toolcrib_call_id="c1")).details
    assert details["violations"] == [VIOLATION]
    assert (details["reason"], details["call_id"], details["code"]) == (
        "REQUEST_INVALID",
        "c1",
        "INVALID_ARGUMENT",
    )


def test_tells_a_broker_that_is_not_there_from_one_that_drains():
    gone = explain(Status(grpc.StatusCode.UNAVAILABLE, "connection refused"))
    drains = explain(
        Status(
            grpc.StatusCode.UNAVAILABLE,
            "wait",
            error_details_pb2.ErrorInfo(reason="DRAINING", domain="toolcrib"),
        )
    )
    assert (gone.exit_code, drains.exit_code) == (4, 1)


def test_survives_details_that_are_none():
    status = refused()
    status._trailers["grpc-status-details-bin"] = b"\xff\xff"
    assert explain(status).message == "INVALID_ARGUMENT: no good"


def test_names_the_remedy_when_there_is_no_profile():
    result = CliRunner().invoke(main, ["tools", "list"], env={"TOOLCRIB_PROFILE": None})
    assert result.exit_code == 2
    assert "--profile" in result.stderr


def test_names_the_file_that_a_profile_lacks(tmp_path: Path):
    (tmp_path / "profile.toml").write_text(
        'address = "127.0.0.1:1"\nca = "ca.pem"\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
    )
    result = CliRunner().invoke(main, ["calls", "list", "--profile", str(tmp_path)])
    assert result.exit_code == 2
    assert "ca.pem: cannot be read" in result.stderr


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("{", "the arguments: is no JSON"),
        ("[]", "must be a JSON object"),
        ("@/no/such/file", "/no/such/file: cannot be read"),
        ("\udcff", "the arguments: is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "the arguments: is no JSON"),
        ("[" * 100_000, "the arguments: is no JSON"),
    ],
)
def test_says_what_is_wrong_with_arguments(argument: str, expected: str):
    with pytest.raises(CommandFailed, match=expected) as caught:
        read_json(argument)
    assert caught.value.exit_code == 2


def test_takes_arguments_from_a_file_untouched(tmp_path: Path):
    text = '{"minor_units": 12345678901234567890, "a": 1.0}'
    (tmp_path / "arguments.json").write_text(text)
    assert read_json(f"@{tmp_path / 'arguments.json'}") == text


def test_reads_a_folder_of_grants(tmp_path: Path):
    for name in ("b.cedar", "a.cedar", "destinations.toml", "README.md"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in read_files((tmp_path,))] == ["a.cedar", "b.cedar", "destinations.toml"]


def test_refuses_a_folder_without_grants(tmp_path: Path):
    with pytest.raises(CommandFailed, match=r"has no \.cedar file"):
        read_files((tmp_path,))


def test_refuses_two_kinds_of_key_at_once():
    result = CliRunner().invoke(main, ["call", "x", "{}", "--key", "k", "--new-key"])
    assert result.exit_code == 2


def test_says_that_the_command_line_needs_a_certificate(tmp_path: Path):
    (tmp_path / "profile.toml").write_text('address = "x:1"\nca = "ca.pem"\ntoken_file = "token"\n')
    with pytest.raises(SettingsInvalid, match="needs certificate and private_key"):
        read_profile(tmp_path)
