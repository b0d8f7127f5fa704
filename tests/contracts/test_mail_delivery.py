"""What the bundle `notes` says of a draft is true wherever the connection to the mail server breaks."""

from __future__ import annotations

import email
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

from tests.parts.handlers import load_handler
from toolcrib.handler import KeyValues, testing
from toolcrib.handler.context import Target

BUNDLE = Path(__file__).parent.parent.parent / "tools" / "bundles" / "notes"
SETTINGS = {"drafts": "drafts@shop.example", "sender": "agents@shop.example"}
ANSWERS = {
    "": b"220 ready\r\n",
    "EHLO": b"250-here\r\n250 AUTH PLAIN\r\n",
    "AUTH": b"235 welcome\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 kept\r\n",
}


class MailServer:
    """Answers by a table; None hangs up instead."""

    def __init__(self, path: Path, changes: dict[str, bytes | None]) -> None:
        self.path, self.heard = path, list[str]()
        self._answers: dict[str, bytes | None] = {**ANSWERS, **changes}
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, name="mail")
        self._thread.start()

    def __enter__(self) -> MailServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with (
            suppress(BrokenPipeError, ConnectionResetError),
            connection,
            connection.makefile("rwb", buffering=0) as stream,
        ):
            word, is_open = "", True
            while is_open and (answer := self._answers.get(word)) is not None:
                stream.write(answer)
                is_message = answer.startswith(b"354")
                line, is_open = self._hear(stream)
                while is_message and is_open and line != ".":
                    line, is_open = self._hear(stream)
                word = line.partition(" ")[0].upper()

    def _hear(self, stream: socket.SocketIO) -> tuple[str, bool]:
        raw = stream.readline()
        self.heard.append(raw.decode().rstrip("\r\n"))
        return self.heard[-1], bool(raw)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with load_handler(BUNDLE, tmp_path_factory.mktemp("bundle"), "notes.v1.notes_pb2") as loaded:
        yield loaded


def draft(bundle: Any, path: Path, **changes: str) -> testing.Run:
    handler, messages = bundle
    fields = {"to": "ann@customer.example", "subject": "Your lamp", "body": "Dear Ann"} | changes
    return testing.run(
        handler,
        "notes.v1.Notes/DraftNote",
        messages.DraftNoteRequest(**fields),
        credentials={"notes-login": KeyValues({"username": "u", "password": "p"}, 1)},
        targets={"notes-mail": Target("", str(path), SETTINGS)},
        idempotency_key="a1b2",
    )


def test_sends_to_the_mailbox_of_drafts_alone(bundle: Any, tmp_path: Path) -> None:
    with MailServer(tmp_path / "mail.sock", {}) as server:
        result = draft(bundle, server.path).result
    assert (result.message_id, result.mailbox) == ("<a1b2@toolcrib.invalid>", "drafts@shop.example")
    assert [line for line in server.heard if line.lower().startswith(("mail from", "rcpt to"))] == [
        "mail FROM:<agents@shop.example>",
        "rcpt TO:<drafts@shop.example>",
    ]
    assert "To: ann@customer.example" in server.heard


@pytest.mark.parametrize(
    ("word", "answer", "code", "effect"),
    [
        ("", None, "MAIL_UNAVAILABLE", "none"),
        ("", b"554 no\r\n", "MAIL_UNAVAILABLE", "none"),
        ("AUTH", b"535 no\r\n", "MAIL_REFUSED", "none"),
        ("AUTH", None, "MAIL_UNAVAILABLE", "none"),
        ("MAIL", None, "MAIL_UNAVAILABLE", "none"),
        ("RCPT", b"550 no\r\n", "MAIL_REFUSED", "none"),
        ("DATA", b"554 no\r\n", "MAIL_REFUSED", "none"),
        (".", b"552 too much\r\n", "MAIL_REFUSED", "none"),
        (".", None, "DRAFT_UNKNOWN", "unknown"),
    ],
)
def test_says_whether_the_draft_is_there(
    bundle: Any, tmp_path: Path, word: str, answer: bytes | None, code: str, effect: str
) -> None:
    with MailServer(tmp_path / "mail.sock", {word: answer}) as server:
        failure = draft(bundle, server.path).failure
    assert failure is not None
    assert (failure.code, failure.effect) == (code, effect)


@pytest.mark.parametrize(
    "change", [{"subject": "a\r\nBcc: x@evil.example"}, {"to": "a@b.example\nBcc: x@evil.example"}]
)
def test_looks_at_headers_once_more(bundle: Any, tmp_path: Path, change: dict[str, str]) -> None:
    failure = draft(bundle, tmp_path / "none.sock", **change).failure
    assert failure is not None and failure.code == "MESSAGE_INVALID"


def test_sends_a_line_with_one_dot_as_a_line(bundle: Any, tmp_path: Path) -> None:
    with MailServer(tmp_path / "mail.sock", {}) as server:
        draft(bundle, server.path, body="one\n.\nQUIT\n")
    assert [line for line in server.heard if line in ("one", "..", "QUIT")] == ["one", "..", "QUIT"]


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?Lamp=0ABcc=3A_x=40evil.example?=",
        "=?utf-8?q?Lamp=0D=0ABcc=3A_x=40evil.example?= more",
        "Re: =?utf-8?b?TGFtcApCY2M6IHhAZXZpbC5leGFtcGxl?=",
    ],
)
def test_lets_no_encoded_word_become_a_header(bundle: Any, tmp_path: Path, subject: str) -> None:
    """Python's email package decodes such a word, and writes the line end in it as one."""
    failure = draft(bundle, tmp_path / "none.sock", subject=subject).failure
    assert failure is not None and failure.code == "MESSAGE_INVALID"


@pytest.mark.parametrize("subject", ["a=?b?=c", "  two  blanks ", "100 % =? sure", "\u00e9" * 150, "x" * 150])
def test_keeps_a_subject_as_it_is(bundle: Any, tmp_path: Path, subject: str) -> None:
    with MailServer(tmp_path / "mail.sock", {}) as server:
        assert draft(bundle, server.path, subject=subject).result is not None
    head = "\r\n".join(server.heard[5:])
    assert str(email.message_from_string(head, policy=SMTP)["Subject"]).strip() == subject.strip()


def test_sends_seven_bits_alone(bundle: Any, tmp_path: Path) -> None:
    """No server promised more: what is not ASCII is written in ASCII."""
    with MailServer(tmp_path / "mail.sock", {}) as server:
        assert draft(bundle, server.path, body="caf\u00e9").result is not None
    assert all(line.isascii() for line in server.heard)


@pytest.mark.parametrize("word", ["", "EHLO", "AUTH", "MAIL", "DATA"])
def test_reads_no_reply_without_end(bundle: Any, tmp_path: Path, word: str) -> None:
    flood = b"250-more of it\r\n" * 200_000
    with MailServer(tmp_path / "mail.sock", {word: flood}) as server:
        failure = draft(bundle, server.path).failure
    assert failure is not None and (failure.code, failure.effect) == ("MAIL_UNAVAILABLE", "none")


def test_does_not_fall_over_a_challenge_that_is_none(bundle: Any, tmp_path: Path) -> None:
    answers = {"EHLO": b"250-here\r\n250 AUTH CRAM-MD5\r\n", "AUTH": b"334 a\r\n"}
    with MailServer(tmp_path / "mail.sock", dict(answers)) as server:
        failure = draft(bundle, server.path).failure
    assert failure is not None and (failure.code, failure.effect) == ("MAIL_UNAVAILABLE", "none")
