"""Who may talk to the MCP server over HTTP: the first thing that a request meets.

1. It names this server in `Host`: a web page that had its own name resolve to our address (DNS rebinding)
   names itself there.
2. It comes from no web page: a browser adds `Origin`, and no page is a client of ours.
3. It carries the bearer token: other programs and users of this machine reach the port, too.
4. It says how long it is, and that is not too long: the SDK reads a body whole before it looks at it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_BODY_BYTES = 4 * 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application in front of another one."""

    def __init__(self, app: App, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token = app, f"bearer {token}".encode()
        self._hosts = frozenset(host.lower().encode() for host in hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope) if scope["type"] == "http" else (400, "only HTTP is spoken here")
        if refusal is None:
            await self._app(scope, receive, send)
            return
        await _answer(send, *refusal)

    def _refuse(self, scope: Message) -> tuple[int, str] | None:
        """Say what is wrong with a request: HTTP status and text. A header that comes twice is wrong."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        found = {
            name: [value for key, value in headers if key == name]
            for name in (b"host", b"origin", b"authorization")
        }
        if len(found[b"host"]) != 1 or found[b"host"][0].lower() not in self._hosts:
            return 421, "this server has another name"
        if found[b"origin"]:
            return 403, "web pages are no clients of this server"
        if len(found[b"authorization"]) != 1 or not self._is_token(found[b"authorization"][0]):
            return 401, "send the bearer token from the server's token file"
        return _refuse_body(headers)

    def _is_token(self, value: bytes) -> bool:
        scheme, _, token = value.partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._token)


def _refuse_body(headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in headers):
        return 411, "send the body with its content-length"
    if any(not value.isdigit() or int(value[:20]) > MAX_BODY_BYTES for value in lengths):
        return 413, f"a message has at most {MAX_BODY_BYTES} bytes"
    return None


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="toolcrib"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
