"""The frames in a container's stream: what is taken, and what is refused, however it is cut."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.conversation import (
    FramesInvalid,
    OutputTooLarge,
    Stream,
    StreamBroken,
    Transcript,
    frame_bytes,
)
from toolcrib.handler.v1 import handler_pb2

STDOUT, STDERR = 1, 2


def _progress(text: str) -> handler_pb2.HandlerFrame:
    return handler_pb2.HandlerFrame(progress=handler_pb2.Progress(message=text))


@given(st.lists(st.text(max_size=40), max_size=8), st.lists(st.integers(1, 50), max_size=20))
def test_finds_the_same_frames_however_the_stream_is_cut(texts: list[str], cuts: list[int]) -> None:
    data = b"".join(frame_bytes(_progress(text)) for text in texts)
    transcript, found = Transcript(1 << 20, 0), []
    for size in [*cuts, len(data)]:
        found += list(transcript.feed(STDOUT, data[:size]))
        data = data[size:]
    assert [frame.progress.message for frame in found] == texts


@given(st.binary(max_size=300))
def test_takes_any_bytes_without_another_error(data: bytes) -> None:
    with contextlib.suppress(FramesInvalid, OutputTooLarge):
        list(Transcript(200, 10).feed(STDOUT, data))


def test_refuses_more_than_the_output_cap() -> None:
    transcript = Transcript(10, 0)
    with pytest.raises(OutputTooLarge):
        list(transcript.feed(STDOUT, bytes(11)))


def test_refuses_a_frame_that_claims_more_than_the_cap() -> None:
    with pytest.raises(OutputTooLarge, match="4294967295 bytes"):
        list(Transcript(1024, 0).feed(STDOUT, b"\xff\xff\xff\xff"))


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x7a\x00"])
def test_refuses_what_is_no_frame(body: bytes) -> None:
    with pytest.raises(FramesInvalid):
        list(Transcript(1024, 0).feed(STDOUT, len(body).to_bytes(4, "big") + body))


def test_keeps_the_beginning_of_the_log_and_says_what_was_dropped() -> None:
    transcript = Transcript(0, 4)
    assert list(transcript.feed(STDERR, b"abcdef")) == []
    assert transcript.log() == "abcd\n[2 bytes more were dropped]"


def test_escapes_what_a_terminal_or_a_reader_would_not_show() -> None:
    transcript = Transcript(0, 100)
    list(transcript.feed(STDERR, "ä\tb\n\x1b\x07\u202e\u200b\U000e0041".encode() + b"\xff"))
    assert transcript.log() == "ä\tb\n\\x1b\\x07\\u202e\\u200b\\U000e0041\\xff"


def test_ignores_other_channels() -> None:
    assert list(Transcript(0, 0).feed(0, b"anything")) == []


async def test_is_broken_where_no_engine_listens(tmp_path: Path) -> None:
    with pytest.raises(StreamBroken):
        await Stream.attach(tmp_path / "no.sock", "c" * 64)
