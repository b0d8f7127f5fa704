"""Who may talk to the MCP server over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from toolcrib.mcp.guard import MAX_BODY_BYTES, Guard
from toolcrib.mcp.options import parse_address

TOKEN = "s3cret-token-of-this-server-000000"
HOSTS = parse_address("127.0.0.1:8765").names(8765)
RIGHT = {"host": "127.0.0.1:8765", "authorization": f"Bearer {TOKEN}"}


async def behind(_scope: Any, _receive: Any, send: Any) -> None:
    """What the guard protects: answers everybody."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


async def ask(app: Any, *headers: tuple[str, str], kind: str = "http") -> int:
    """Send a request with these headers; its status."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    await app({"type": kind, "method": "POST", "path": "/mcp", "headers": raw}, receive, send)
    return int(sent[0]["status"])


async def ask_guard(*headers: tuple[str, str], kind: str = "http") -> int:
    return await ask(Guard(behind, TOKEN, HOSTS), *headers, kind=kind)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_lets_a_client_with_the_token_in(host: str, scheme: str) -> None:
    assert await ask_guard(("host", host), ("authorization", f"{scheme} {TOKEN}")) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8765",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:8765.evil.example",
        "127.0.0.1:8765@evil.example",
        "localhost.evil.example:8765",
        "127.0.0.1:8765:1",
        "[::1]:8765",
        "0.0.0.0:8765",
    ],
)
async def test_knows_its_own_name_only(host: str) -> None:
    """DNS rebinding: a page's own name was made to resolve to our address."""
    assert await ask_guard(("host", host), ("authorization", RIGHT["authorization"])) == 421


async def test_refuses_two_hosts() -> None:
    right = ("host", RIGHT["host"])
    assert await ask_guard(right, ("host", "evil.example"), ("authorization", RIGHT["authorization"])) == 421


async def test_refuses_a_request_without_a_host() -> None:
    assert await ask_guard(("authorization", RIGHT["authorization"])) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8765", "http://localhost:3000", ""]
)
async def test_refuses_web_pages(origin: str) -> None:
    assert await ask_guard(*RIGHT.items(), ("origin", origin)) == 403


@pytest.mark.parametrize(
    "value",
    [
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        "Bearer \xff",
    ],
)
async def test_refuses_a_client_without_the_token(value: str) -> None:
    assert await ask_guard(("host", RIGHT["host"]), ("authorization", value)) == 401


async def test_refuses_two_tokens() -> None:
    assert await ask_guard(*RIGHT.items(), ("authorization", "Bearer another")) == 401


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (("content-length", str(MAX_BODY_BYTES)), 200),
        (("content-length", str(MAX_BODY_BYTES + 1)), 413),
        (("content-length", "9" * 5000), 413),
        (("content-length", "-1"), 413),
        (("transfer-encoding", "chunked"), 411),
    ],
)
async def test_takes_no_body_without_bounds(header: tuple[str, str], status: int) -> None:
    assert await ask_guard(*RIGHT.items(), header) == status


async def test_looks_at_the_token_before_the_body() -> None:
    assert await ask_guard(("host", RIGHT["host"]), ("transfer-encoding", "chunked")) == 401


async def test_speaks_no_websocket() -> None:
    assert await ask_guard(*RIGHT.items(), kind="websocket") == 400


async def test_control_without_the_guard_anybody_is_in() -> None:
    assert await ask(behind, ("host", "evil.example"), ("origin", "http://evil.example")) == 200
