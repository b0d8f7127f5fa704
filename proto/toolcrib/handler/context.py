"""What a handler knows about the call that it serves, and what it may ask on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from toolcrib.handler.artefacts import make_folder, read_artefact
from toolcrib.handler.credentials import Credential, Signed, read_credential
from toolcrib.handler.frames import Frames
from toolcrib.handler.v1 import handler_pb2

C = TypeVar("C")


class Target(NamedTuple):
    """A way out of the sandbox.

    Attributes:
        socket_dir: Folder of the unix socket; a PostgreSQL client takes it as its host.
        socket_path: The unix socket itself.
        settings: What the operator declared, for example "database".
        origins: What the URLs of an "http" target begin with, for example "https://api.example:8443". Any
            client that reads HTTP_PROXY and HTTPS_PROXY reaches them.
    """

    socket_dir: str
    socket_path: str
    settings: Mapping[str, str]
    origins: Sequence[str] = ()


class SignatureRefused(Exception):
    """There is no signature; the text says why."""


class Context:
    """One call: who asks, what was minted for it, and how much time is left.

    Attributes:
        idempotency_key: Give it to the target where that dedupes; empty for a read without a key.
        attempt: Number of the attempt under this key, from 1.
        credentials: By the manifest's name; `credential` gives one with its type.
        cancel_reason: Why the call was cancelled; empty while it was not, or nobody looked (`cancelled`).
    """

    def __init__(self, start: handler_pb2.Start, frames: Frames) -> None:
        call = start.context
        self.call_id, self.tenant, self.environment = call.call_id, call.tenant, call.environment
        self.agent, self.subject = call.agent, call.subject
        self.idempotency_key, self.attempt = call.idempotency_key, call.attempt
        self.traceparent = call.traceparent
        self.credentials: Mapping[str, Credential] = {
            name: read_credential(value) for name, value in start.credentials.items()
        }
        self.targets: Mapping[str, Target] = {
            name: Target(value.socket_dir, value.socket_path, dict(value.settings), tuple(value.origins))
            for name, value in start.targets.items()
        }
        self.cancel_reason = ""
        self._deadline = time.monotonic() + call.remaining_millis / 1000
        self._frames = frames
        self._cancelled = False
        self._signs = 0

    @property
    def remaining_seconds(self) -> float:
        """Time until the sandbox ends, whatever it does then; 0 when it is over."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for the answer any more, or its credentials ended; stop early then."""
        while not self._cancelled and self._frames.waiting():
            try:
                self._read()
            except EOFError:
                self._cancelled, self.cancel_reason = True, "the broker is gone"
        return self._cancelled

    def credential(self, name: str, kind: type[C]) -> C:
        """Return a credential with its type, for example `context.credential("orders_read", Login)`.

        Raises:
            KeyError: The manifest gives this method no credential of that name.
            TypeError: It is of another kind.
        """
        found = self.credentials[name]
        if not isinstance(found, kind):
            raise TypeError(f"credential {name} is a {type(found).__name__}, not a {kind.__name__}")
        return found

    def sign(self, credential: str, data: bytes) -> Signed:
        """Have data signed by a key that stays in Vault, and wait for the signature.

        Args:
            credential: The manifest's name of a credential of the engine transit.
            data: Signed as it is; up to 32 KiB. It counts as output.

        Raises:
            SignatureRefused: There is none; the text says why.
        """
        self._signs += 1
        number = self._signs
        sign = handler_pb2.Sign(id=number, credential=credential, input=data)
        self._frames.write(handler_pb2.HandlerFrame(sign=sign))
        answer = None
        while answer is None or answer.id != number:
            try:
                answer = self._read()
            except EOFError as error:
                raise SignatureRefused("the broker is gone") from error
        if answer.error:
            raise SignatureRefused(answer.error)
        return Signed(answer.signature, answer.key_version)

    def progress(self, message: str, percent: int = 0) -> None:
        """Tell how far the work is.

        Args:
            message: For people; cut at 200 characters.
            percent: 0 to 100; 0 where unknown.
        """
        progress = handler_pb2.Progress(message=message[:200], percent=max(0, min(100, percent)))
        self._frames.write(handler_pb2.HandlerFrame(progress=progress))

    @property
    def artefact_folder(self) -> str:
        """The folder whose files can be given back; it is there from now on."""
        return make_folder(self._frames.artefact_folder)

    def give_artefact(self, name: str, media_type: str = "application/octet-stream") -> None:
        """Give a file of `artefact_folder` back with the result. The manifest says how many, and how large.

        Args:
            name: Its plain name.
            media_type: What it is, for example "text/csv".

        Raises:
            ArtefactInvalid: It is no regular file of that folder.
        """
        content = read_artefact(name, self._frames.artefact_folder)
        artefact = handler_pb2.Artefact(name=name, media_type=media_type, content=content)
        self._frames.write(handler_pb2.HandlerFrame(artefact=artefact))

    def _read(self) -> handler_pb2.Signature | None:
        """Take the next frame: note a Cancel, give a Signature.

        Raises:
            EOFError: The broker is gone.
        """
        frame = self._frames.read()
        if frame.HasField("cancel"):
            self._cancelled, self.cancel_reason = True, frame.cancel.reason
        return frame.signature if frame.HasField("signature") else None
