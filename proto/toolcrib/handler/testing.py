"""Runs a handler in the process of its author's tests: no sandbox, no broker, protobuf only.

    from toolcrib.handler import testing
    from handler import handler

    def test_greets_by_name():
        run = testing.run(handler, "greeter.v1.Greeter/Greet", greeter_pb2.GreetRequest(name="Ada"))
        assert run.result.message == "Hello, Ada!"

It holds the conversation that a sandbox holds, frame by frame, so what a handler answers here it answers
there. What it does not do: check the request and the result against the contract, take rights away, keep the
limits of the manifest. `toolcrib tools test` does.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from toolcrib.handler.context import Target
from toolcrib.handler.credentials import (
    ClientCertificate,
    Credential,
    Injected,
    KeyValues,
    Login,
    Signed,
    SshLogin,
)
from toolcrib.handler.failure import Effect
from toolcrib.handler.frames import Frames
from toolcrib.handler.handler import PROTOCOL_VERSION, Handler
from toolcrib.handler.v1 import handler_pb2

Sign = Callable[[str, bytes], Signed]
"""Signs for the tests: (name of the credential, data) -> signature."""

_EFFECTS: dict[int, Effect] = {handler_pb2.EFFECT_NONE: "none", handler_pb2.EFFECT_APPLIED: "applied"}


class FailureSeen(NamedTuple):
    """What a caller would be told instead of a result."""

    code: str
    message: str
    retryable: bool
    effect: Effect


class Given(NamedTuple):
    """A file that the handler gave back."""

    name: str
    media_type: str
    content: bytes


class Run(NamedTuple):
    """What a handler said while it served one call.

    Attributes:
        result: The response, of its generated class; None with a failure.
        failure: None with a result.
        log: What it printed.
        progress: (message, percent), in order.
        artefacts: Files that it gave back; they count only with a result.
    """

    result: Any
    failure: FailureSeen | None
    log: str
    progress: Sequence[tuple[str, int]]
    artefacts: Sequence[Given]


class Call(NamedTuple):
    """What else a call may have; `run` and `run_async` take these by name.

    Attributes:
        credentials: By the manifest's name, for example {"orders_read": Login("reader", "secret")}.
        targets: By the manifest's name: sockets of fakes that the test runs.
        idempotency_key: As the target gets it.
        cancel_reason: Cancelled before it began to look, for this reason.
        sign: Answers `Context.sign`; None refuses.
    """

    credentials: Mapping[str, Credential] = {}
    targets: Mapping[str, Target] = {}
    idempotency_key: str = ""
    cancel_reason: str = ""
    remaining_seconds: float = 10.0
    tenant: str = "test"
    environment: str = "test"
    agent: str = "tester"
    subject: str = ""
    sign: Sign | None = None


def run(handler: Handler, method: str, request: Message, **call: Any) -> Run:
    """Serve one call and return what the handler said.

    Args:
        handler: The bundle's.
        method: Full name, "greeter.v1.Greeter/Greet".
        request: Of the method's request type.
        call: Fields of `Call`.

    Raises:
        RuntimeError: An event loop runs here; await `run_async` instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(handler, method, request, Call(**call))
    raise RuntimeError("an event loop runs here: await toolcrib.handler.testing.run_async(…) instead")


async def run_async(handler: Handler, method: str, request: Message, **call: Any) -> Run:
    """Do the same as `run` in a test that is a coroutine; the handler runs in a thread."""
    return await asyncio.to_thread(_run, handler, method, request, Call(**call))


def _run(handler: Handler, method: str, request: Message, call: Call) -> Run:
    log = io.StringIO()
    folder = tempfile.mkdtemp(prefix="toolcrib-artefacts-")
    try:
        frames = _Recorder(_make_start(method, request, call), call, folder)
        with redirect_stdout(log), redirect_stderr(log):
            handler.run(frames)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _read_run(handler, method, frames.said, log.getvalue())


class _Recorder(Frames):
    """The broker's side of the conversation, in memory."""

    def __init__(self, start: handler_pb2.Start, call: Call, folder: str) -> None:
        self.said: list[handler_pb2.HandlerFrame] = []
        self.artefact_folder = folder
        self._sign = call.sign
        self._coming = [handler_pb2.BrokerFrame(start=start)]
        if call.cancel_reason:
            cancel = handler_pb2.Cancel(reason=call.cancel_reason)
            self._coming.append(handler_pb2.BrokerFrame(cancel=cancel))

    def read(self) -> handler_pb2.BrokerFrame:
        if not self._coming:
            raise EOFError("the test has nothing more to say")
        return self._coming.pop(0)

    def waiting(self) -> bool:
        return bool(self._coming)

    def write(self, frame: Message) -> None:
        said = handler_pb2.HandlerFrame.FromString(frame.SerializeToString())
        self.said.append(said)
        if said.HasField("sign"):
            self._coming.append(handler_pb2.BrokerFrame(signature=self._answer(said.sign)))

    def _answer(self, sign: handler_pb2.Sign) -> handler_pb2.Signature:
        if self._sign is None:
            return handler_pb2.Signature(id=sign.id, error="this call has no credential that signs")
        signed = self._sign(sign.credential, sign.input)
        return handler_pb2.Signature(id=sign.id, signature=signed.signature, key_version=signed.key_version)


def _make_start(method: str, request: Message, call: Call) -> handler_pb2.Start:
    context = handler_pb2.CallContext(
        call_id="test-call",
        tenant=call.tenant,
        environment=call.environment,
        agent=call.agent,
        subject=call.subject,
        idempotency_key=call.idempotency_key,
        attempt=1,
        remaining_millis=int(call.remaining_seconds * 1000),
    )
    return handler_pb2.Start(
        protocol_version=PROTOCOL_VERSION,
        context=context,
        method=method,
        request=request.SerializeToString(deterministic=True),
        credentials={name: write_credential(value) for name, value in call.credentials.items()},
        targets={
            name: handler_pb2.Target(
                socket_dir=target.socket_dir,
                socket_path=target.socket_path,
                settings=dict(target.settings),
                origins=target.origins,
            )
            for name, target in call.targets.items()
        },
    )


def write_credential(value: Credential) -> handler_pb2.Credential:
    """Write a credential as the broker gives it to a handler."""
    if isinstance(value, Login):
        return handler_pb2.Credential(username_password=handler_pb2.UsernamePassword(**value._asdict()))
    if isinstance(value, KeyValues):
        values = handler_pb2.KeyValues(values=dict(value.fields), version=value.version)
        return handler_pb2.Credential(key_values=values)
    if isinstance(value, ClientCertificate):
        return handler_pb2.Credential(client_certificate=handler_pb2.ClientCertificate(**value._asdict()))
    if isinstance(value, SshLogin):
        return handler_pb2.Credential(ssh_login=handler_pb2.SshLogin(**value._asdict()))
    if isinstance(value, Injected):
        return handler_pb2.Credential(injected=handler_pb2.Injected(form=value.form))
    return handler_pb2.Credential(signer=handler_pb2.Signer(**value._asdict()))


def _read_run(handler: Handler, method: str, said: Sequence[handler_pb2.HandlerFrame], log: str) -> Run:
    last = said[-1]
    failure = None
    if last.HasField("failure"):
        effect = _EFFECTS.get(last.failure.effect, "unknown")
        failure = FailureSeen(last.failure.code, last.failure.message, last.failure.retryable, effect)
    return Run(
        result=None if failure else _read_result(handler, method, last.result.response),
        failure=failure,
        log=log,
        progress=[(f.progress.message, f.progress.percent) for f in said if f.HasField("progress")],
        artefacts=[
            Given(f.artefact.name, f.artefact.media_type, f.artefact.content)
            for f in said
            if f.HasField("artefact")
        ],
    )


def _read_result(handler: Handler, method: str, response: bytes) -> Message | bytes:
    """Read a response into its class; bytes where the handler does not say which that is."""
    tool = handler.tools[method]
    if not tool.response_name:
        return response
    pool = tool.request_type.DESCRIPTOR.file.pool
    descriptor: Any = pool.FindMessageTypeByName(tool.response_name)
    return GetMessageClass(descriptor).FromString(response)
