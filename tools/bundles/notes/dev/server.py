"""A mail server for `toolcrib dev`: aiosmtpd, with a password, that keeps each message as a file.

    python3 -P server.py FOLDER

It listens on a free port of 127.0.0.1, writes its number to FOLDER/port, and keeps messages in FOLDER/mail,
each named by the SHA-256 of its Message-ID: a message that comes twice is there once. Not every server
does that.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import sys
from collections.abc import Mapping
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

_MOST_BYTES = 1024 * 1024


class Mailbox:
    """Keeps what comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep one message, with its envelope in two headers of ours."""
        content = envelope.original_content or b""
        known = message_from_bytes(content, policy=policy.default).get("Message-ID", "")
        name = hashlib.sha256(known.encode() if known else content).hexdigest()
        envelope_lines = f"X-Sender: {envelope.mail_from}\r\nX-Recipients: {', '.join(envelope.rcpt_tos)}\r\n"
        fresh = self._folder / f".{name}"
        fresh.write_bytes(envelope_lines.encode() + content)
        fresh.replace(self._folder / f"{name}.eml")
        return "250 kept"


def make_authenticator(username: str, password: str) -> Any:
    """Give what aiosmtpd asks whether a login is right."""

    def check(_server: SMTP, _session: Session, _envelope: Envelope, _how: str, said: Any) -> AuthResult:
        right = isinstance(said, LoginPassword) and all(
            [
                hmac.compare_digest(said.login, username.encode()),
                hmac.compare_digest(said.password, password.encode()),
            ]
        )
        return AuthResult(success=right, handled=False)

    return check


async def listen(folder: Path, login: Mapping[str, str], listening: socket.socket) -> asyncio.Server:
    """Serve on a socket; messages come into FOLDER/mail."""
    mailbox = Mailbox(folder / "mail")
    check = make_authenticator(login["username"], login["password"])

    def answer() -> SMTP:
        """Give each connection a protocol of its own."""
        return SMTP(
            mailbox,
            data_size_limit=_MOST_BYTES,
            hostname="toolcrib-mail.invalid",
            auth_required=True,
            auth_require_tls=False,
            authenticator=check,
        )

    return await asyncio.get_running_loop().create_server(answer, sock=listening)


async def serve(folder: Path) -> None:
    """Serve until somebody ends this process."""
    login = json.loads((folder / "settings.json").read_text())["secrets"]["notes-login"]
    listening = socket.create_server(("127.0.0.1", 0))
    server = await listen(folder, login, listening)
    (folder / "port.new").write_text(str(listening.getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
