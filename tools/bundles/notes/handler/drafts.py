"""Hands one message to an SMTP server, addressed on its envelope to the mailbox of drafts.

Rules:
1. The envelope's recipient and sender are the operator's, always: whatever the request says, the message goes
   to the mailbox of drafts. The address of the request stands in the header To, for the person who sends it.
2. Headers are made by Python's email package, which refuses a value with a line end; the contract refuses it
   before. It also decodes encoded words (RFC 2047), and a line end in one would begin a header of the
   agent's, a Bcc for example: a value that does not come out as it went in is refused.
3. The Message-ID comes from the idempotency key, so that a second delivery of one key is the same message.
4. Once the message's last line was sent, only the server's word tells whether it took it.
"""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from typing import TYPE_CHECKING

from notes.v1 import notes_pb2

from toolcrib.handler import Failure, KeyValues
from toolcrib.handler.target_socket import TargetSocket

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET, CREDENTIAL = "notes-mail", "notes-login"
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
_READY, _ACCEPTED, _GO_ON = 220, 250, 354
_MOST_REPLY_BYTES = 256 * 1024
_POLICY = SMTP.clone(cte_type="7bit")


class _Connection(smtplib.SMTP):
    """An SMTP connection over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(local_hostname="toolcrib.invalid", timeout=seconds)
        self._path = path

    def _get_socket(self, _host: str, _port: int, timeout: float) -> TargetSocket:
        return TargetSocket(self._path, timeout, _MOST_REPLY_BYTES)

    def starttls(self, *, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:  # type: ignore[override]
        raise smtplib.SMTPNotSupportedError("the target is on loopback or behind a proxy of the operator's")


def draft_note(request: notes_pb2.DraftNoteRequest, context: Context) -> notes_pb2.DraftNoteResponse:
    """Put a message into the mailbox of drafts.

    Raises:
        Failure: TARGET_NOT_SET_UP, MAIL_UNAVAILABLE, MAIL_REFUSED or DRAFT_UNKNOWN.
    """
    target = context.targets[TARGET]
    mailbox, sender = target.settings.get("drafts", ""), target.settings.get("sender", "")
    if not mailbox or not sender:
        raise Failure("TARGET_NOT_SET_UP", "The operator declared no mailbox of drafts, or no sender.")
    message = _compose(request, context, sender)
    login = context.credential(CREDENTIAL, KeyValues).fields
    if not {"username", "password"} <= login.keys():
        raise Failure("TARGET_NOT_SET_UP", "The secret has no username, or no password.")
    connection = _Connection(target.socket_path, max(context.remaining_seconds - _RESERVE_SECONDS, 0.1))
    try:
        _greet(connection, login["username"], login["password"])
        _deliver(connection, sender, mailbox, message.as_bytes())
    finally:
        connection.close()
    return notes_pb2.DraftNoteResponse(message_id=message["Message-ID"], mailbox=mailbox)


def _compose(request: notes_pb2.DraftNoteRequest, context: Context, sender: str) -> EmailMessage:
    """Write the message.

    Raises:
        Failure: MESSAGE_INVALID.
    """
    message = EmailMessage(policy=_POLICY)
    try:
        message["From"], message["To"], message["Subject"] = sender, request.to, request.subject
        message["Message-ID"] = f"<{context.idempotency_key or context.call_id}@toolcrib.invalid>"
        message["X-Toolcrib-Call"] = context.call_id
        message.set_content(request.body)
    except ValueError as error:  # a line end in a header, an address that is none
        raise Failure("MESSAGE_INVALID", "The message's headers cannot be written.") from error
    if (message["To"], message["Subject"]) != (request.to, request.subject):
        raise Failure("MESSAGE_INVALID", "An encoded word ('=?…?=') in a header is not sent; write it out.")
    return message


def _greet(connection: _Connection, username: str, password: str) -> None:
    """Connect and log in.

    Raises:
        Failure: MAIL_UNAVAILABLE or MAIL_REFUSED: nothing was sent.
    """
    try:
        code, _ = connection.connect("target", smtplib.SMTP_PORT)
        if code != _READY:
            raise _unavailable()
        connection.login(username, password)
    except smtplib.SMTPAuthenticationError as error:
        raise Failure("MAIL_REFUSED", "The mail server refused the login. Nothing was drafted.") from error
    except (OSError, ValueError, smtplib.SMTPException) as error:  # ValueError: a challenge that is none
        raise _unavailable() from error


def _deliver(connection: _Connection, sender: str, mailbox: str, message: bytes) -> None:
    """Send the one message.

    Raises:
        Failure: MAIL_UNAVAILABLE, MAIL_REFUSED (nothing was drafted) or DRAFT_UNKNOWN.
    """
    try:
        answers = [connection.mail(sender), connection.rcpt(mailbox)]
        if any(code != _ACCEPTED for code, _ in answers):
            raise Failure("MAIL_REFUSED", "The mail server refused sender or mailbox. Nothing was drafted.")
        code, _ = connection.docmd("DATA")
    except (OSError, smtplib.SMTPException) as error:
        raise _unavailable() from error
    if code != _GO_ON:
        raise Failure("MAIL_REFUSED", "The mail server refused the message. Nothing was drafted.")
    try:
        # A line that begins with a dot gets another one (RFC 5321, 4.5.2): alone it would end the message.
        connection.send(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        code, _ = connection.getreply()
    except (OSError, smtplib.SMTPException) as error:
        text = "The connection ended before the mail server said whether it took the message."
        raise Failure("DRAFT_UNKNOWN", text, effect="unknown") from error
    if code != _ACCEPTED:
        raise Failure("MAIL_REFUSED", "The mail server refused the message. Nothing was drafted.")


def _unavailable() -> Failure:
    text = "The mail server cannot be reached, or gave no answer. Nothing was drafted."
    return Failure("MAIL_UNAVAILABLE", text, retryable=True)
