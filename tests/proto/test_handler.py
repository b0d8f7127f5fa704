"""The handler SDK: one conversation over two pipes, and every way in which it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from toolcrib.handler import (
    ClientCertificate,
    Context,
    Failure,
    Handler,
    KeyValues,
    Login,
    SignatureRefused,
    Signed,
    Signer,
    SshLogin,
)
from toolcrib.handler.frames import Frames
from toolcrib.handler.v1 import handler_pb2

METHOD = "test.v1.Test/Echo"
Conversation = Callable[..., list[handler_pb2.HandlerFrame]]


class Wires:
    """Both pipes of a handler."""

    def __init__(self) -> None:
        self.broker_reads, handler_writes = os.pipe()
        handler_reads, self.broker_writes = os.pipe()
        self.handler = Frames(handler_reads, handler_writes)
        self.broker = Frames(self.broker_reads, self.broker_writes)
        self.descriptors = [self.broker_reads, self.broker_writes, handler_reads, handler_writes]

    def end_stream(self) -> None:
        """The broker goes away."""
        os.close(self.broker_writes)
        self.descriptors.remove(self.broker_writes)

    def said(self) -> list[handler_pb2.HandlerFrame]:
        """Everything that the handler wrote."""
        os.close(self.descriptors.pop())
        with os.fdopen(self.broker_reads, "rb", closefd=False) as pipe:
            data, frames = pipe.read(), []
        while data:
            length = int.from_bytes(data[:4], "big")
            frames.append(handler_pb2.HandlerFrame.FromString(data[4 : 4 + length]))
            data = data[4 + length :]
        return frames


@pytest.fixture
def wires() -> Iterator[Wires]:
    wires = Wires()
    yield wires
    for descriptor in wires.descriptors:
        os.close(descriptor)


@pytest.fixture
def converse(wires: Wires) -> Conversation:
    """Send a Start and give the frames that came back."""

    def run(serve: Any, **start: Any) -> list[handler_pb2.HandlerFrame]:
        handler = Handler()
        handler.tool(METHOD, handler_pb2.Progress)(serve)
        wires.broker.write(
            handler_pb2.BrokerFrame(
                start=handler_pb2.Start(**{"protocol_version": 1, "method": METHOD, **start})
            )
        )
        handler.run(wires.handler)
        loaded, *frames = wires.said()
        assert loaded.HasField("loaded")
        return frames

    return run


def _code(frames: list[handler_pb2.HandlerFrame]) -> tuple[str, int]:
    (frame,) = frames
    return frame.failure.code, frame.failure.effect


def test_says_that_it_is_loaded_before_there_is_a_call(wires: Wires) -> None:
    wires.end_stream()
    with pytest.raises(EOFError):
        Handler().run(wires.handler)
    assert [frame.WhichOneof("frame") for frame in wires.said()] == ["loaded"]


def test_sends_the_result_of_a_plain_function(converse: Conversation) -> None:
    (frame,) = converse(lambda request, context: request, request=b"\n\x02hi")
    assert frame.result.response == b"\n\x02hi"


def test_sends_the_result_of_an_async_function(converse: Conversation) -> None:
    async def serve(request: Any, context: Context) -> Any:
        return request

    (frame,) = converse(serve, request=b"\n\x02hi")
    assert frame.result.response == b"\n\x02hi"


def test_sends_progress_before_the_result(converse: Conversation) -> None:
    def serve(request: Any, context: Context) -> Any:
        context.progress("half " * 100, 150)
        return request

    progress, result = converse(serve)
    assert (len(progress.progress.message), progress.progress.percent) == (200, 100)
    assert result.HasField("result")


def test_sends_a_failure(converse: Conversation) -> None:
    def serve(request: Any, context: Context) -> Any:
        raise Failure("TOO_LATE", "the shop is closed", retryable=True, effect="applied")

    (frame,) = converse(serve)
    expected = handler_pb2.Failure(
        code="TOO_LATE", message="the shop is closed", retryable=True, effect=handler_pb2.EFFECT_APPLIED
    )
    assert frame.failure == expected


def test_hides_the_text_of_a_foreign_exception(
    converse: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(request: Any, context: Context) -> Any:
        raise KeyError("password=hunter2")

    (frame,) = converse(serve)
    assert (frame.failure.code, frame.failure.effect) == ("HANDLER_ERROR", handler_pb2.EFFECT_UNKNOWN)
    assert "hunter2" not in frame.failure.message
    assert "hunter2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"protocol_version": 2}, ("PROTOCOL_UNKNOWN", handler_pb2.EFFECT_NONE)),
        ({"method": "test.v1.Test/Other"}, ("METHOD_UNKNOWN", handler_pb2.EFFECT_NONE)),
        ({"request": b"\xff"}, ("REQUEST_MALFORMED", handler_pb2.EFFECT_NONE)),
    ],
)
def test_refuses_what_it_cannot_serve(
    converse: Conversation, start: dict[str, Any], expected: tuple[str, int]
) -> None:
    assert _code(converse(lambda request, context: request, **start)) == expected


def test_does_not_take_something_else_for_a_response(converse: Conversation) -> None:
    frames = converse(lambda request, context: {"a": "dict"})
    assert _code(frames) == ("RESPONSE_INVALID", handler_pb2.EFFECT_UNKNOWN)


def test_gives_the_context_of_the_call(converse: Conversation) -> None:
    seen: list[Context] = []
    login = handler_pb2.UsernamePassword(username="v-1", password="secret")
    converse(
        lambda request, context: seen.append(context) or request,
        context=handler_pb2.CallContext(call_id="c1", tenant="acme", attempt=2, remaining_millis=60_000),
        credentials={"orders": handler_pb2.Credential(username_password=login)},
        targets={"db": handler_pb2.Target(socket_dir="/run/toolcrib/db", settings={"database": "shop"})},
    )
    (context,) = seen
    assert (context.call_id, context.tenant, context.attempt) == ("c1", "acme", 2)
    assert context.credentials == {"orders": Login("v-1", "secret")}
    assert (context.targets["db"].socket_dir, context.targets["db"].settings) == (
        "/run/toolcrib/db",
        {"database": "shop"},
    )
    assert 0 < context.remaining_seconds <= 60


def test_never_shows_a_password_in_a_repr() -> None:
    assert "secret" not in repr({"orders": Login("v-1", "secret")})
    assert "secret" not in f"{Login('v-1', 'secret')}"


def test_knows_when_it_was_cancelled(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    assert not context.cancelled
    wires.broker.write(handler_pb2.BrokerFrame(cancel=handler_pb2.Cancel(reason="gone")))
    assert context.cancelled
    assert context.cancelled


def test_tells_why_it_was_cancelled(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    wires.broker.write(handler_pb2.BrokerFrame(cancel=handler_pb2.Cancel(reason="session lost")))
    assert (context.cancelled, context.cancel_reason) == (True, "session lost")


def test_is_cancelled_when_the_broker_is_gone(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    os.close(wires.broker_writes)
    wires.descriptors.remove(wires.broker_writes)
    assert (context.cancelled, context.cancel_reason) == (True, "the broker is gone")


def _signature(number: int, **values: Any) -> handler_pb2.BrokerFrame:
    return handler_pb2.BrokerFrame(signature=handler_pb2.Signature(id=number, **values))


def test_asks_for_a_signature_and_waits_for_it(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    wires.broker.write(_signature(1, signature=b"s", key_version=3))
    assert context.sign("key", b"data") == Signed(b"s", 3)
    (frame,) = wires.said()
    assert frame.sign == handler_pb2.Sign(id=1, credential="key", input=b"data")


def test_takes_only_the_answer_to_its_own_question(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    wires.broker.write(_signature(9, signature=b"old"))
    wires.broker.write(_signature(1, signature=b"mine"))
    assert context.sign("key", b"data").signature == b"mine"


def test_notes_a_cancel_while_it_waits_for_a_signature(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    wires.broker.write(handler_pb2.BrokerFrame(cancel=handler_pb2.Cancel(reason="brake")))
    wires.broker.write(_signature(1, signature=b"s"))
    assert context.sign("key", b"data").signature == b"s"
    assert (context.cancelled, context.cancel_reason) == (True, "brake")


def test_says_why_there_is_no_signature(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    wires.broker.write(_signature(1, error="all are used"))
    with pytest.raises(SignatureRefused, match="all are used"):
        context.sign("key", b"data")


def test_does_not_wait_for_a_signature_of_a_broker_that_is_gone(wires: Wires) -> None:
    context = Context(handler_pb2.Start(), wires.handler)
    os.close(wires.broker_writes)
    wires.descriptors.remove(wires.broker_writes)
    with pytest.raises(SignatureRefused, match="gone"):
        context.sign("key", b"data")


KINDS = [
    (
        handler_pb2.Credential(
            username_password=handler_pb2.UsernamePassword(username="u", password="hidden")
        ),
        Login("u", "hidden"),
    ),
    (
        handler_pb2.Credential(key_values=handler_pb2.KeyValues(values={"api": "hidden"}, version=4)),
        KeyValues({"api": "hidden"}, 4),
    ),
    (
        handler_pb2.Credential(
            client_certificate=handler_pb2.ClientCertificate(
                certificate_pem="cert", private_key_pem="hidden", chain_pem="ca"
            )
        ),
        ClientCertificate("cert", "hidden", "ca"),
    ),
    (
        handler_pb2.Credential(
            ssh_login=handler_pb2.SshLogin(username="git", private_key="hidden", certificate="c")
        ),
        SshLogin("git", "hidden", "c"),
    ),
    (
        handler_pb2.Credential(
            signer=handler_pb2.Signer(algorithm="ed25519", max_signatures=2, public_key_pem="p")
        ),
        Signer("ed25519", 2, "p"),
    ),
]


@pytest.mark.parametrize(("frame", "expected"), KINDS)
def test_gives_each_kind_of_credential_with_its_type(
    wires: Wires, frame: handler_pb2.Credential, expected: Any
) -> None:
    context = Context(handler_pb2.Start(credentials={"one": frame}), wires.handler)
    assert context.credentials == {"one": expected}
    assert context.credential("one", type(expected)) == expected
    assert "hidden" not in repr(context.credentials)


def test_does_not_give_a_credential_as_another_kind(wires: Wires) -> None:
    context = Context(handler_pb2.Start(credentials={"one": KINDS[0][0]}), wires.handler)
    with pytest.raises(TypeError, match="is a Login, not a SshLogin"):
        context.credential("one", SshLogin)


def test_fails_for_a_credential_of_a_later_protocol(converse: Conversation) -> None:
    frames = converse(lambda request, context: request, credentials={"one": handler_pb2.Credential()})
    assert _code(frames) == ("CREDENTIAL_UNKNOWN", handler_pb2.EFFECT_NONE)


def test_refuses_a_method_registered_twice() -> None:
    handler = Handler()
    handler.tool(METHOD, handler_pb2.Progress)(lambda request, context: request)
    with pytest.raises(ValueError, match="twice"):
        handler.tool(METHOD, handler_pb2.Progress)


@pytest.mark.parametrize("code", ["", "lower", "X" * 65, "A B", "1A"])
def test_refuses_a_code_that_programs_cannot_use(code: str) -> None:
    with pytest.raises(ValueError, match="ORDER_UNKNOWN"):
        Failure(code, "message")


def test_refuses_an_unknown_effect() -> None:
    with pytest.raises(ValueError, match="applied"):
        Failure("CODE", "message", effect="maybe")  # type: ignore[arg-type]
