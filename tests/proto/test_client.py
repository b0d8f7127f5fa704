"""Both clients do the same: one suite, against a real gRPC server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.proto.scripted_broker import FILE, READ, WRITE, Face, ScriptedBroker, end
from toolcrib.client import CallTerms, Failed, ProfileInvalid, Refused, Unreachable, read_profile


async def test_gives_result_labels_and_artefacts(client: Face):
    answer = await client.invoke(READ, {"orderId": "A-1"})
    assert (answer.call_id, answer.result, answer.labels) == ("c1", {"ok": True}, ("untrusted",))
    assert answer.is_untrusted
    assert answer.artefact_count == 2


async def test_sends_arguments_environment_workflow_and_version(client: Face, broker: ScriptedBroker):
    await client.invoke(WRITE, {"a": 1}, key="k1", environment="dev", workflow="h", tool_version="1.0.0")
    (request,) = broker.seen
    assert (request.tool, request.arguments_json, request.idempotency_key) == (WRITE, '{"a": 1}', "k1")
    assert (request.environment, request.workflow, request.tool_version) == ("dev", "h", "1.0.0")


async def test_sends_json_text_as_it_is(client: Face, broker: ScriptedBroker):
    await client.invoke(READ, '{"orderId":  "A-1"}')
    assert broker.seen[0].arguments_json == '{"orderId":  "A-1"}'


@pytest.mark.parametrize("arguments", [{"a": float("nan")}, {"a": object()}, {"a": b"x"}])
async def test_refuses_arguments_that_are_no_json(client: Face, broker: ScriptedBroker, arguments: Any):
    with pytest.raises(Refused) as error:
        await client.invoke(READ, arguments)
    assert error.value.reason == "REQUEST_MALFORMED"
    assert broker.seen == []


async def test_makes_a_key_for_each_call_that_may_be_a_write(client: Face, broker: ScriptedBroker):
    answers = [await client.invoke(WRITE, {}) for _ in range(2)]
    keys = [request.idempotency_key for request in broker.seen]
    assert keys == [answer.key for answer in answers]
    assert len(set(keys)) == 2
    assert all(keys)


async def test_sends_no_key_with_a_tool_that_is_known_to_be_a_read(client: Face, broker: ScriptedBroker):
    await client.list_tools()
    await client.invoke(READ, {})
    await client.invoke(WRITE, {})
    assert [bool(request.idempotency_key) for request in broker.seen] == [False, True]


async def test_lists_all_pages(client: Face):
    tools = await client.list_tools()
    assert [(tool.name, tool.effect, tool.reach) for tool in tools] == [
        (READ, "READ", "INTERNAL"),
        (WRITE, "WRITE", "OUTWARD"),
    ]


async def test_describes_a_tool_in_both_forms(client: Face):
    assert (await client.describe(READ)).request_schema == {}
    assert (await client.describe(READ, True)).request_schema == {"strict": True}


async def test_reads_what_became_of_a_call(client: Face):
    report = await client.get_call("c7")
    assert (report.call.call_id, report.result) == ("c7", {"ok": True})


async def test_opens_a_workflow(client: Face):
    opened = await client.open_workflow("refund-desk", description="one refund")
    assert (opened.handle, opened.workflow_id) == ("h-refund-desk", "w1")
    assert opened.expires.tzinfo is UTC


async def test_reads_a_file_part_by_part(client: Face, broker: ScriptedBroker):
    assert b"".join(await client.read_artefact("c1", "report.csv")) == FILE
    assert broker.parts == 3


@pytest.mark.parametrize("file", [FILE[:-1] + b"x", FILE[:-1], FILE + b"more", b""])
async def test_refuses_a_file_that_is_not_the_one_announced(
    client: Face, broker: ScriptedBroker, file: bytes
):
    broker.file = file
    with pytest.raises(Failed) as error:
        await client.read_artefact("c1", "report.csv")
    assert error.value.reason == "RESULT_INVALID"
    assert broker.parts <= 4


def generated(face: Face) -> Any:
    """What protoc's stub is made of."""
    return face.client.channel.unary_unary(
        f"/{WRITE}", request_serializer=bytes.upper, response_deserializer=bytes.decode
    )


async def test_calls_a_generated_stub_with_a_key_and_reads_its_trailers(client: Face, broker: ScriptedBroker):
    answer = await client.call(generated(client), b"refund", terms=CallTerms(environment="dev"))
    assert (answer.result, answer.call_id, answer.replayed) == ("REFUND", "c9", True)
    assert answer.labels == ("a", "untrusted")
    (metadata,) = broker.metadata
    assert metadata["toolcrib-idempotency-key"] == answer.key
    assert metadata["toolcrib-environment"] == "dev"


async def test_repeats_a_generated_stubs_call_with_its_key(client: Face, broker: ScriptedBroker):
    broker.steps = [end(grpc.StatusCode.UNAVAILABLE)]
    answer = await client.call(generated(client), b"refund")
    assert [sent["toolcrib-idempotency-key"] for sent in broker.metadata] == [answer.key] * 2


async def test_says_when_nobody_listens(client: Face, broker: ScriptedBroker):
    await broker.stop()
    with pytest.raises(Unreachable) as error:
        await client.invoke(WRITE, {}, timeout=0.4)
    assert error.value.reason in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert error.value.key


async def test_repeats_over_a_restart_of_the_broker_with_the_same_key(client: Face, broker: ScriptedBroker):
    crashed = asyncio.Event()

    async def crash(_context: Any) -> None:
        crashed.set()
        await asyncio.sleep(30)

    broker.steps = [crash]
    call = asyncio.create_task(client.invoke(WRITE, {}, timeout=20))
    await crashed.wait()
    await broker.stop()
    await broker.start()
    answer = await call
    assert [request.idempotency_key for request in broker.seen] == [answer.key] * 2


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_takes_no_timeout_that_is_none(client: Face, timeout: float):
    with pytest.raises(ValueError, match="more than 0 seconds"):
        await client.invoke(READ, {}, timeout=timeout)


def test_needs_nothing_but_grpc_and_protobuf():
    program = (
        "import sys, toolcrib.client, toolcrib.adapters\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'broker', 'pydantic', 'grpc_status'}), 'google.rpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "needs address"),
        ("address = 1\n", "needs address"),
        ("address = [", "needs address"),
        ('address = "x:1"\nca = "ca.pem"\n', "needs address"),
        ('address = "x:1"\nca = 7\ntoken_file = "t"\n', "needs address"),
    ],
)
def test_says_what_a_profile_lacks(tmp_path: Path, text: str, problem: str):
    (tmp_path / "profile.toml").write_text(text)
    with pytest.raises(ProfileInvalid, match=problem):
        read_profile(tmp_path)


def test_says_which_file_of_a_profile_cannot_be_read(tmp_path: Path):
    with pytest.raises(ProfileInvalid, match=r"profile\.toml: cannot be read"):
        read_profile(tmp_path / "profile.toml")
    names = 'ca = "ca.pem"\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
    (tmp_path / "profile.toml").write_text(f'address = "x:1"\n{names}')
    with pytest.raises(ProfileInvalid, match=r"ca\.pem: cannot be read"):
        read_profile(tmp_path).credentials.channel_credentials()
