"""A file that a real tool gives back reaches the agent that asked, whole, and nobody else."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.client import Profile
from tests.e2e import grants
from tests.e2e.caller import Reply, read_error
from tests.e2e.stack import Crib
from tests.e2e.test_story import get_call
from toolcrib.v1 import broker_pb2, broker_pb2_grpc

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

READ, NAME = "mischief.v1.Mischief/Read", "report.bin"
CONTENT = b"0123456789abcdef" * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def given(crib: Crib) -> Reply:
    """A call that gave a file back."""
    crib.grant(grants.MISCHIEF)
    return ask_for(crib, "give")


def ask_for(crib: Crib, how: str, key: str = "") -> Reply:
    with crib.caller() as agent:
        return agent.call(READ, {"how": how}, key=key)


def fetch(profile: Profile, reply: Reply, offset: int = 0, name: str = NAME) -> Any:
    """Read a part of the file; the reason where it is refused."""
    request = broker_pb2.GetArtefactRequest(call_id=reply.call_id, name=name, offset=offset)
    with profile.connect() as channel:
        try:
            return broker_pb2_grpc.BrokerStub(channel).GetArtefact(request)
        except grpc.RpcError as error:
            return read_error(error).reason


def test_gives_the_agent_its_file_in_parts(crib: Crib, given: Reply):
    agent = crib.profile("refund-desk")
    first = fetch(agent, given)
    second = fetch(agent, given, first.next_offset)
    assert given.trailers["toolcrib-artefacts"] == "1"
    assert (len(first.content), second.next_offset) == (1024 * 1024, 0)
    assert first.content + second.content == CONTENT
    assert (first.sha256, first.size_bytes, first.media_type) == (
        DIGEST,
        len(CONTENT),
        "application/x-report",
    )


def test_lists_it_in_the_record_and_shows_its_content_to_nobody_else(crib: Crib, given: Reply):
    (listed,) = get_call(crib, given.call_id).artefacts
    other = crib.stack.profile("refund-desk", subject="mallory")
    assert (listed.name, listed.size_bytes, listed.sha256) == (NAME, len(CONTENT), DIGEST)
    assert fetch(crib.profile("olga", "operator"), given) == "ROLE_REQUIRED"
    assert fetch(crib.profile("eve"), given) == "CALL_UNKNOWN"
    assert fetch(other, given) == "CALL_UNKNOWN"


def test_says_what_there_is_not(crib: Crib, given: Reply):
    agent = crib.profile("refund-desk")
    assert fetch(agent, given, name="other") == "CALL_UNKNOWN"
    assert [fetch(agent, given, offset) for offset in (-1, len(CONTENT) + 1)] == ["REQUEST_INVALID"] * 2
    assert fetch(agent, given, len(CONTENT)).content == b""


def test_replays_an_answer_with_its_file(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = secrets.token_hex(8)
    first, again = (ask_for(crib, "give", key) for _ in range(2))
    assert (again.replayed, again.trailers["toolcrib-artefacts"]) == (True, "1")
    assert fetch(crib.profile("refund-desk"), again) == fetch(crib.profile("refund-desk"), first)


def test_keeps_no_file_that_tells_a_secret(crib: Crib):
    crib.grant(grants.MISCHIEF)
    reply = ask_for(crib, "give_secret")
    record = get_call(crib, reply.call_id)
    assert (reply.reason, list(record.marks), list(record.artefacts)) == (
        "SECRET_IN_RESULT",
        ["SECRET_IN_RESULT"],
        [],
    )
    assert fetch(crib.profile("refund-desk"), reply) == "CALL_UNKNOWN"


def test_keeps_it_sealed(crib: Crib, given: Reply):
    folder = crib.stack.settings.state.path.parent
    kept = b"".join(path.read_bytes() for path in folder.glob("state.db*") if path.is_file())
    assert given.call_id.encode() in kept
    assert [text in kept for text in (CONTENT[:64], NAME.encode(), b"x-report", DIGEST.encode())] == [
        False
    ] * 4


# --- the command line ------------------------------------------------------------------------------------
def run(crib: Crib, *words: str) -> Result:
    folder = crib.profile("refund-desk").cert_path.parent
    return CliRunner().invoke(main, ["calls", *words], env={"TOOLCRIB_PROFILE": str(folder)})


def test_writes_a_file_and_never_over_another(
    crib: Crib, given: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert run(crib, "artefact", given.call_id, NAME).exit_code == 0
    place = tmp_path / NAME
    assert place.read_bytes() == CONTENT
    place.write_bytes(b"mine")
    refused = run(crib, "artefact", given.call_id, NAME, "--output", str(place))
    assert (refused.exit_code, place.read_bytes()) == (2, b"mine")
    assert "--force" in refused.output
    assert run(crib, "artefact", given.call_id, NAME, "--force").exit_code == 0
    assert place.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_replaces_a_link_and_not_what_it_leads_to(crib: Crib, given: Reply, tmp_path: Path):
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("target")
    words = ("artefact", given.call_id, NAME, "--output", str(tmp_path / "link"))
    assert [run(crib, *words).exit_code, run(crib, *words, "--force").exit_code] == [2, 0]
    assert (tmp_path / "target").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc/passwd", "..", ""])
def test_refuses_a_name_that_is_none(crib: Crib, name: str):
    assert run(crib, "artefact", "c1", name).exit_code == 2


def test_shows_a_call_with_its_files(crib: Crib, given: Reply):
    shown = run(crib, "show", given.call_id).output
    assert NAME in shown
    assert "1600000" in shown
