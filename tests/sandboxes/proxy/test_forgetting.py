"""What the proxy's memory holds of a call once it is closed: no secret, however short."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from credentials.injection import FIELDS, Form, Injection
from sandboxes.proxy import process
from tests.sandboxes.proxy.doors import OK, Doors, answering, opening, permit, read_request, running, serving

GET = b"GET /a HTTP/1.1\r\nHost: pages.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: pages.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
CLOSE = b"GET /a HTTP/1.1\r\nHost: pages.example\r\nConnection: close\r\n\r\n"
SETTINGS = {"name": "X-Key", "prefix": "", "region": "us-east-1", "service": "s3", "username": "u"}
HIDDEN = {"token", "password", "value", "secret_access_key", "session_token"}
BARE = {"PYTHONMALLOC": "pymalloc"}


def make_injection(form: Form, length: int) -> Injection:
    secret = {name: secrets.token_hex(length)[:length] for name in FIELDS[form]}
    return Injection("api", form, {name: SETTINGS.get(name, value) for name, value in secret.items()})


def count_in_memory(pid: int, wanted: bytes) -> int:
    """Count how often bytes stand in what a process can write to."""
    count = 0
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.split()[1].startswith("rw"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(start)
                count += memory.read(end - start).count(wanted)
    return count


async def use(doors: Doors) -> None:
    """Have it added to requests that end in every way there is."""
    assert b"200 OK" in await doors.say(GET + CLOSE, "pages")
    assert b"200 OK" in await doors.say(POST, "pages")
    assert b"403" in await doors.say(CLOSE.replace(b"/a", b"/../a"), "pages")
    reader, writer = await doors.connect("pages")
    writer.write(GET + GET[:20])
    await reader.readuntil(b"ok")
    writer.transport.abort()


async def count_left(injection: Injection) -> dict[str, int]:
    """Use a credential in a call; give what its memory holds of it when the call is closed."""
    access = permit("GET /{p:rest}?*", "POST /{p:rest}?*", injection=injection)
    hidden = {name: value for name, value in injection.fields.items() if name in HIDDEN}
    async with serving(answering(OK)) as target, running(target.declare()) as child:
        async with opening(child, access) as doors:
            await use(doors)
            assert all(count_in_memory(child.pid, value.encode()) for value in hidden.values())
        return {name: count_in_memory(child.pid, value.encode()) for name, value in hidden.items()}


@pytest.mark.parametrize("length", [20, 300])
@pytest.mark.parametrize("form", [Form.BEARER, Form.BASIC, Form.HEADER, Form.QUERY, Form.SIGV4])
async def test_holds_no_secret_of_a_call_that_was_closed(form: Form, length: int) -> None:
    assert set((await count_left(make_injection(form, length))).values()) == {0}


async def test_would_hold_them_in_what_python_and_threads_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_FORGETTING", BARE)
    left = [await count_left(make_injection(Form.BEARER, length)) for length in (20, 64, 300)]
    assert any(count for one in left for count in one.values())


async def test_holds_no_secret_that_a_target_repeats() -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await read_request(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))

    injection = make_injection(Form.BEARER, 40)
    async with serving(repeat) as target, running(target.declare()) as child:
        async with opening(child, permit(injection=injection)) as doors:
            assert b"[redacted]" in await doors.say(CLOSE, "pages")
        assert count_in_memory(child.pid, injection.fields["token"].encode()) == 0
