"""docs/frames.md shows the bytes that protobuf's own code makes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from toolcrib.handler.v1 import handler_pb2

PAGE = Path(__file__).parent.parent.parent / "docs" / "frames.md"
BLOCK = re.compile(r"```hex\n(.*?)```", re.DOTALL)
LINE = re.compile(r"(?P<bytes>[0-9a-f]{2}(?: [0-9a-f]{2})*)  +(?P<what>\S.*)")

DIGEST = hashlib.sha256(b"abc").hexdigest().encode()
START = handler_pb2.Start(
    protocol_version=1,
    context=handler_pb2.CallContext(call_id="c1"),
    method="shell.v1.Checksum/SumText",
    request=b"\x0a\x03abc",
)
RESPONSE = b"\x0a\x40" + DIGEST + b"\x10\x03"
FROM_HANDLER = [
    handler_pb2.HandlerFrame(loaded=handler_pb2.Loaded()),
    handler_pb2.HandlerFrame(result=handler_pb2.Result(response=RESPONSE)),
    handler_pb2.HandlerFrame(
        failure=handler_pb2.Failure(code="TOO_MUCH", message="Ask less.", effect=handler_pb2.EFFECT_NONE)
    ),
    handler_pb2.HandlerFrame(progress=handler_pb2.Progress(message="half", percent=50)),
    handler_pb2.HandlerFrame(
        artefact=handler_pb2.Artefact(name="a.txt", media_type="text/plain", content=b"hi")
    ),
]
SHOWN = [FROM_HANDLER[0], handler_pb2.BrokerFrame(start=START), *FROM_HANDLER[1:]]


def read_block(block: str) -> bytes:
    lines = [LINE.fullmatch(line) for line in block.strip().splitlines()]
    assert all(lines), block
    return bytes.fromhex(" ".join(line["bytes"] for line in lines if line))


def test_shows_each_frame_byte_for_byte() -> None:
    shown = b"".join(read_block(block) for block in BLOCK.findall(PAGE.read_text()))
    made = [frame.SerializeToString(deterministic=True) for frame in SHOWN]
    assert shown == b"".join(len(frame).to_bytes(4, "big") + frame for frame in made)


def test_quotes_what_stands_in_the_bytes() -> None:
    quoted = re.findall(
        r'^(?P<bytes>(?:[0-9a-f]{2} )*[0-9a-f]{2})  .*"(.*)"$', PAGE.read_text(), re.MULTILINE
    )
    assert len(quoted) > 15
    for data, words in quoted:
        assert bytes.fromhex(data).endswith(words.encode())
