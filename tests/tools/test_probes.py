"""A probe can be asked with the key alone and answers with what the write would have answered."""

from __future__ import annotations

import pytest

from tests.tools.protos import IMAGE_ID, compile_messages, write_manifest
from tools.catalogue import ToolVersion, load_version
from tools.errors import BundleInvalid, UnknownFields
from tools.registration import register_set

SERVICE = """
service Things {
  rpc Do(Request) returns (Response) {
    option (toolcrib.v1.tool) = {effect: WRITE, scope: "things.do", probe: "Look"};
  }
  rpc Look(LookRequest) returns (LookResponse) {
    option (toolcrib.v1.tool) = {effect: READ, scope: "things.look"};
  }
}
message Other { string text = 1; }
"""
SERVICE_OF_ONE = """
service Things {
  rpc Do(Request) returns (Response) { option (toolcrib.v1.tool) = {effect: WRITE, scope: "things.do"}; }
}
"""
KEY = "string key = 1 [(toolcrib.v1.field).probe = PROBE_KEY];"
HAPPENED = "bool done = 1 [(toolcrib.v1.field).probe = PROBE_HAPPENED];"
RESULT = "Response result = 2 [(toolcrib.v1.field).probe = PROBE_RESULT];"


def compile_probe(request: str = KEY, response: str = HAPPENED + RESULT) -> bytes:
    messages = f"message LookRequest {{ {request} }} message LookResponse {{ {response} }}"
    return compile_messages(messages, SERVICE)


@pytest.fixture(scope="module")
def version() -> ToolVersion:
    manifest = write_manifest("test.v1.Things/Do", "test.v1.Things/Look")
    return load_version(compile_probe(), manifest, IMAGE_ID)


@pytest.mark.parametrize(
    ("request_fields", "response_fields", "problem"),
    [
        ("string key = 1;", HAPPENED + RESULT, "has 0 fields PROBE_KEY"),
        (KEY + KEY.replace("key = 1", "more = 2"), HAPPENED + RESULT, "has 2 fields PROBE_KEY"),
        (KEY, RESULT, "has 0 fields PROBE_HAPPENED"),
        (KEY, HAPPENED, "has 0 fields PROBE_RESULT"),
        (KEY, HAPPENED + RESULT.replace("Response", "Other"), "is a test.v1.Other: make it the write's"),
        (KEY.replace("string", "repeated string"), HAPPENED + RESULT, "probe is for one field each"),
        (KEY.replace("string", "int64"), HAPPENED + RESULT, "probe is for one field each"),
        (KEY, HAPPENED.replace("bool", "int32") + RESULT, "probe is for one field each"),
        (
            KEY + "string why = 2 [(buf.validate.field).required = true];",
            HAPPENED + RESULT,
            "must be valid with a key of 64 hex digits alone: why",
        ),
        (
            KEY.replace("[", "[(buf.validate.field).string.max_len = 10, "),
            HAPPENED + RESULT,
            "must be valid with a key of 64 hex digits alone: key",
        ),
    ],
)
def test_refuses_a_probe(request_fields: str, response_fields: str, problem: str) -> None:
    with pytest.raises(BundleInvalid) as error:
        register_set(compile_probe(request_fields, response_fields))
    assert problem in str(error.value)


def test_refuses_to_send_a_read_again() -> None:
    messages = f"message LookRequest {{ {KEY} }} message LookResponse {{ {HAPPENED}{RESULT} }}"
    service = SERVICE.replace('scope: "things.look"', 'scope: "things.look", dedupes: true')
    with pytest.raises(BundleInvalid, match="never sent again"):
        register_set(compile_messages(messages, service))


def test_asks_with_the_key(version: ToolVersion) -> None:
    probe = version.contracts["test.v1.Things/Look"]
    assert probe.canonical(probe.probe_request("ab")) == b"\x0a\x02ab"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"", (False, None)),
        (b"\x12\x03\x0a\x01x", (False, None)),  # a result, and "not happened": that counts
        (b"\x08\x01", (True, None)),
        (b"\x08\x01\x12\x03\x0a\x01x", (True, b"\x0a\x01x")),
    ],
)
def test_reads_an_answer(version: ToolVersion, answer: bytes, found: tuple[bool, bytes | None]) -> None:
    probe = version.contracts["test.v1.Things/Look"]
    assert probe.read_probe(probe.parse_result(answer)) == found


def test_reads_a_result_that_a_person_gives(version: ToolVersion) -> None:
    write = version.contracts["test.v1.Things/Do"]
    assert write.canonical(write.parse_result_json('{"text": "x"}')) == b"\x0a\x01x"
    with pytest.raises(UnknownFields):
        write.parse_result_json('{"txt": "x"}')
