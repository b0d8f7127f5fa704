"""The frames in a container's stream: what is taken, and what is refused, however it is cut."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.container_init import EXIT, FRAMES, LOG, PIECE
from sandboxes.conversation import (
    MAX_SIGNS,
    Dialogue,
    FramesInvalid,
    OutputTooLarge,
    Transcript,
    frame_bytes,
)
from sandboxes.outcome import refuse_to_sign
from sandboxes.stream import Pieces, StreamBroken
from toolcrib.handler.v1 import handler_pb2


def _progress(text: str) -> handler_pb2.HandlerFrame:
    return handler_pb2.HandlerFrame(progress=handler_pb2.Progress(message=text))


@given(st.lists(st.text(max_size=40), max_size=8), st.lists(st.integers(1, 50), max_size=20))
def test_finds_the_same_frames_however_the_stream_is_cut(texts: list[str], cuts: list[int]) -> None:
    data = b"".join(frame_bytes(_progress(text)) for text in texts)
    transcript, found = Transcript(1 << 20, 0), []
    for size in [*cuts, len(data)]:
        found += list(transcript.feed(FRAMES, data[:size]))
        data = data[size:]
    assert [frame.progress.message for frame in found] == texts


@given(st.binary(max_size=300))
def test_takes_any_bytes_without_another_error(data: bytes) -> None:
    with contextlib.suppress(FramesInvalid, OutputTooLarge):
        list(Transcript(200, 10).feed(FRAMES, data))


def test_refuses_more_than_the_output_cap() -> None:
    transcript = Transcript(10, 0)
    with pytest.raises(OutputTooLarge):
        list(transcript.feed(FRAMES, bytes(11)))


def test_refuses_a_frame_that_claims_more_than_the_cap() -> None:
    with pytest.raises(OutputTooLarge, match="4294967295 bytes"):
        list(Transcript(1024, 0).feed(FRAMES, b"\xff\xff\xff\xff"))


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x7a\x00"])
def test_refuses_what_is_no_frame(body: bytes) -> None:
    with pytest.raises(FramesInvalid):
        list(Transcript(1024, 0).feed(FRAMES, len(body).to_bytes(4, "big") + body))


def test_keeps_the_beginning_of_the_log_and_says_what_was_dropped() -> None:
    transcript = Transcript(0, 4)
    assert list(transcript.feed(LOG, b"abcdef")) == []
    assert transcript.log() == "abcd\n[the rest was dropped]"
    assert transcript.log_truncated


def test_escapes_what_a_terminal_or_a_reader_would_not_show() -> None:
    transcript = Transcript(0, 100)
    list(transcript.feed(LOG, "ä\tb\n\x1b\x07\u202e\u200b\U000e0041".encode() + b"\xff"))
    assert transcript.log() == "ä\tb\n\\x1b\\x07\\u202e\\u200b\\U000e0041\\xff"


def test_ignores_other_channels() -> None:
    assert list(Transcript(0, 0).feed(0, b"anything")) == []


@given(st.lists(st.tuples(st.sampled_from([FRAMES, LOG, EXIT]), st.binary(max_size=60))), st.integers(1, 40))
def test_finds_the_same_pieces_however_they_are_cut(pieces: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(PIECE.pack(channel, len(body)) + body for channel, body in pieces)
    unpack = Pieces()
    found = [unpack(data[at : at + size]) for at in range(0, len(data), size)]
    assert [piece for some in found for piece in some] == pieces


def test_refuses_a_piece_that_init_would_not_make() -> None:
    with pytest.raises(StreamBroken, match="not from init"):
        Pieces()(PIECE.pack(FRAMES, 1 << 30))


# --- signatures on the way -------------------------------------------------------------------------------
class Desk:
    """The broker's side of one dialogue."""

    def __init__(self, output_cap: int = 1 << 20) -> None:
        self.inputs: list[bytes] = []
        self.sent: list[handler_pb2.BrokerFrame] = []
        self.dialogue = Dialogue(Transcript(output_cap, 0), self.send, self.sign)

    async def send(self, data: bytes) -> None:
        self.sent.append(handler_pb2.BrokerFrame.FromString(data[4:]))

    async def sign(self, sign: handler_pb2.Sign) -> handler_pb2.Signature:
        self.inputs.append(sign.input)
        return handler_pb2.Signature(id=sign.id, signature=sign.input[::-1])

    async def take(self, frames: Sequence[handler_pb2.HandlerFrame]) -> handler_pb2.HandlerFrame | None:
        return await self.dialogue.take(FRAMES, b"".join(frame_bytes(frame) for frame in frames))


def _sign(number: int, data: bytes = b"abc") -> handler_pb2.HandlerFrame:
    return handler_pb2.HandlerFrame(sign=handler_pb2.Sign(id=number, credential="key", input=data))


RESULT = handler_pb2.HandlerFrame(result=handler_pb2.Result(response=b"done"))


LOADED = handler_pb2.HandlerFrame(loaded=handler_pb2.Loaded())


def test_takes_before_the_call_that_the_handler_is_loaded() -> None:
    desk = Desk()
    desk.dialogue.take_early(FRAMES, frame_bytes(LOADED))
    assert desk.dialogue.loaded


@pytest.mark.parametrize("early", [RESULT, _sign(1), _progress("half"), LOADED])
def test_takes_nothing_else_before_the_call(early: handler_pb2.HandlerFrame) -> None:
    desk = Desk()
    with pytest.raises(FramesInvalid):
        desk.dialogue.take_early(FRAMES, frame_bytes(LOADED) + frame_bytes(early))
    assert desk.sent == []


async def test_answers_each_sign_under_its_number() -> None:
    desk = Desk()
    assert await desk.take([_sign(7), _progress("half"), _sign(8, b"xy")]) is None
    answers = [(frame.signature.id, frame.signature.signature) for frame in desk.sent]
    assert answers == [(7, b"cba"), (8, b"yx")]


async def test_signs_nothing_after_the_result() -> None:
    desk = Desk()
    assert await desk.take([RESULT, _sign(1)]) == RESULT
    assert desk.inputs == []


async def test_ends_a_flood_of_signs() -> None:
    desk = Desk()
    with pytest.raises(FramesInvalid, match="1000 signatures"):
        await desk.take([_sign(1, b"")] * (MAX_SIGNS + 1))
    assert len(desk.inputs) == MAX_SIGNS


async def test_counts_what_is_to_be_signed_as_output() -> None:
    desk = Desk(output_cap=1000)
    await desk.take([_sign(1, bytes(900))])
    with pytest.raises(OutputTooLarge):
        await desk.take([_sign(2, bytes(900))])
    assert len(desk.inputs) == 1


async def test_refuses_to_sign_where_no_credential_does() -> None:
    answer = await refuse_to_sign(handler_pb2.Sign(id=3))
    assert (answer.id, answer.signature) == (3, b"")
    assert "no credential" in answer.error
