"""Fuzzes the HTTP proxy: damaged requests from the sandbox, damaged answers from the target, a real child.

    python -m tests.fuzz.fuzz_proxy --seconds 600 --seed 1

Each case is one connection to a door of an open call. It holds when
1. all that the target hears is requests that a rule allows, each written anew, with the credential once;
2. nothing that comes back into the sandbox has the credential in it;
3. the connection ends, the child lives, says nothing of an unforeseen error, and its memory is bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from credentials.injection import Form, Injection
from sandboxes.proxy.access import HttpCaps
from tests.sandboxes.proxy.doors import Doors, Target, opening, permit, read_all, running, serving

SECRET = "tok-5e1f9b7c3d2a8604"
CASE_SECONDS = 60.0
PAUSE_SECONDS = 0.01
"""How long the target waits for another request before it ends its connection."""
MEMORY_KIB = 200 * 1024
CASES_A_CALL = 250
CAPS = HttpCaps(request_bytes=100_000, response_bytes=200_000, seconds=20, requests=1_000_000)
_HOST = b"Host: pages.example\r\n"
_BODY = b"Content-Length: 11\r\n\r\nhello world"
_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nT: x\r\n\r\n"
REQUESTS = [
    b"GET /ok/1 HTTP/1.1\r\n" + _HOST + b"Accept: */*\r\nConnection: close\r\n\r\n",
    b"GET /ok/1?q=a%20b HTTP/1.1\r\n" + _HOST + b"Authorization: Bearer mine\r\nCookie: a=b\r\n\r\n",
    b"POST /ok/2 HTTP/1.1\r\n" + _HOST + b"Content-Type: text/plain\r\n" + _BODY,
    b"POST /ok/2 HTTP/1.1\r\n" + _HOST + _CHUNKS,
    b"POST /ok/2 HTTP/1.1\r\n" + _HOST + b"Expect: 100-continue\r\n" + _BODY,
    b"HEAD /ok/3 HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /ok/1 HTTP/1.0\r\n" + _HOST + b"\r\n",
    b"DELETE /all HTTP/1.1\r\n" + _HOST + _BODY,
]
TUNNEL = b"CONNECT pages.example:80 HTTP/1.1\r\nHost: pages.example:80\r\n\r\n"
_PACKED = gzip.compress(SECRET.encode() * 50 + b"x" * 1000)
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX-Echo: " + SECRET.encode() + b"\r\n\r\nBearer " + SECRET.encode(),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ntok-5e1f9\r\nb\r\nb7c3d2a8604\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_PACKED) + _PACKED,
    b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://pages.example/x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nup to the end",
]
TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\r\n ",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\xff",
        b"\x7f",
        b";",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: evil\r\n",
    ),
    *(b"Transfer-Encoding: identity\r\n", b"Content-Length : 3\r\n", b"Connection: authorization, host\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"Upgrade: h2c\r\n", b"Expect: x\r\n"),
    *(
        b"DELETE /all HTTP/1.1\r\nHost: pages.example\r\n\r\n",
        b"/../",
        b"%2e%2e/",
        b"%00",
        b"//",
        b"HTTP/1.1 200 OK\r\n",
    ),
    *(
        b"999999999999",
        b"ffffffffffffffff\r\n",
        b"-1",
        b"1_0",
        b"+5",
        b"0x5",
        b"5,5",
        b"a" * 40_000,
        b"A: b\r\n" * 120,
        b"0\r\n" + b"A:\r\n" * 16_000,
        b"0\r\nA:" + b" " * 60_000 + b"\v\r\n\r\n",
        b"1;" + b" " * 60_000 + b"\n",
    ),
]
_HEAD = re.compile(
    rb"(?:GET|HEAD|POST) /ok/-?[0-9]+(?:\?q=[!-~]*)? HTTP/1\.1\r\nhost: pages\.example\r\n"
    rb"((?:[a-z0-9-]+: [\x20-\x7e]*\r\n)*)\r\n"
)
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


@dataclass
class Tally:
    """What a run found."""

    cases: int = 0
    heard: int = 0
    peak_kib: int = 0
    slowest_seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Mutator:
    """Makes cases: the same number gives the same bytes."""

    def __init__(self, seed: int, number: int) -> None:
        self._rng = random.Random(f"{seed}:{number}")

    def make_request(self) -> tuple[str, list[bytes]]:
        """Give the door and what is sent to it, in pieces."""
        rng = self._rng
        raw = b"".join(rng.choices(REQUESTS, k=rng.choice((1, 1, 1, 2, 3))))
        door = rng.choice(("pages", "pages", ""))
        if not door and rng.random() < 0.7:
            raw = re.sub(rb" /", b" http://pages.example/", raw)
        elif not door:
            return door, [self._damage(TUNNEL), *self._split(self._damage(raw))]
        return door, self._split(self._damage(raw))

    def make_answer(self) -> list[bytes]:
        """Give what the target says to a request, in pieces."""
        answer = self._rng.choice(ANSWERS)
        return self._split(self._damage(answer) if self._rng.random() < 0.7 else answer)

    def _split(self, raw: bytes) -> list[bytes]:
        places = sorted(self._rng.randrange(len(raw) + 1) for _ in range(self._rng.choice((0, 0, 1, 4))))
        return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]

    def _damage(self, raw: bytes) -> bytes:
        for _ in range(self._rng.choice((0, 1, 1, 2, 3, 8))):
            raw = self._damage_once(raw)
        return raw

    def _damage_once(self, raw: bytes) -> bytes:
        rng = self._rng
        at = rng.randrange(len(raw) + 1)
        end = min(len(raw), at + rng.choice((1, 1, 2, 10, 100)))
        match rng.randrange(6):
            case 0:
                return raw[:at] + rng.choice(TOKENS) + raw[at:]
            case 1:
                return raw[:at] + raw[end:]
            case 2:
                return raw[:at] + rng.randbytes(end - at) + raw[end:]
            case 3:
                return raw[:end] + raw[at:end] + raw[end:]
            case 4:
                return raw[:at] + rng.choice(TOKENS) + raw[end:]
            case _:
                line = (
                    b"\r\n".join(rng.sample(parts := raw.split(b"\r\n"), len(parts))) if at % 7 == 0 else raw
                )
                return line[:at] if rng.random() < 0.3 else line


class Fuzzer:
    """Runs cases one after another against one child."""

    def __init__(self, seed: int) -> None:
        self.tally = Tally()
        self._seed, self._number = seed, 0
        self._mutator = Mutator(seed, 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the target: say something damaged to whatever comes, then perhaps end."""
        pause = CASE_SECONDS
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(pause):
                    if not await reader.read(65_536):
                        return
                for piece in self._mutator.make_answer():
                    writer.write(piece)
                    await writer.drain()
                pause = PAUSE_SECONDS * (self._number % 3)

    async def run(self, seconds: float, first: int = 0, most: int = 10**9) -> None:
        """Run cases until the time is over or so many were run."""
        ends, self._number = time.monotonic() + seconds, first
        async with (
            serving(self.serve) as target,
            running(target.declare(), connections=(16, 100_000)) as child,
        ):
            while time.monotonic() < ends and self.tally.cases < most and not child.has_ended:
                injection = Injection("api", Form.BEARER, {"token": SECRET})
                access = permit("GET /ok/{n:int}?q={text}", "POST /ok/{n:int}", "HEAD /ok/{n:int}", caps=CAPS)
                access = type(access)("pages", access.allow, caps=CAPS, injection=injection)
                async with opening(child, access, name=f"c{self._number}") as doors:
                    for _ in range(min(CASES_A_CALL, most - self.tally.cases)):
                        if time.monotonic() > ends:
                            break
                        await self._case(doors, target)
            if child.has_ended:
                self.tally.failures.append(f"case {self._number - 1}: the child ended: {child.reason}")

    async def _case(self, doors: Doors, target: Target) -> None:
        target.heard.clear()
        self._mutator = Mutator(self._seed, self._number)
        door, pieces = self._mutator.make_request()
        began = time.monotonic()
        try:
            async with asyncio.timeout(CASE_SECONDS):
                answer = await _converse(doors, door, pieces)
            self._check(doors, target, answer)
        except (AssertionError, TimeoutError) as error:
            self.tally.failures.append(f"case {self._number}: {error!r}\n  {door!r} {pieces!r:.2000}")
        self.tally.slowest_seconds = max(self.tally.slowest_seconds, time.monotonic() - began)
        self.tally.cases += 1
        self._number += 1

    def _check(self, doors: Doors, target: Target, answer: bytes) -> None:
        assert not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 103")), "an interim answer came through"
        assert SECRET.encode() not in answer, f"the credential came back: {answer!r:.500}"
        for heard in target.heard:
            self.tally.heard += check_heard(bytes(heard))
        assert not doors.child._last_words, doors.child._last_words
        self.tally.statuses.update(code.decode() for code in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer))
        if self._number % 100 == 0:
            self.tally.peak_kib = max(self.tally.peak_kib, _memory_kib(doors.pid))
            assert self.tally.peak_kib < MEMORY_KIB, f"{self.tally.peak_kib} KiB"


def check_heard(heard: bytes) -> int:
    """Hold what a target heard on one connection to what may reach it; give the number of requests.

    Raises:
        AssertionError: It is something else; only its end may be cut off.
    """
    count = 0
    while heard:
        head = _HEAD.match(heard)
        assert head, f"no request that a rule allows: {heard!r:.500}"
        lines = head[1].split(b"\r\n")[:-1]
        names = [line.partition(b": ")[0] for line in lines]
        assert names.count(b"authorization") == 1 and b"authorization: Bearer " + SECRET.encode() in lines, (
            lines
        )
        assert not {b"cookie", b"connection", b"host", b"expect", b"upgrade"} & set(names), lines
        assert len({b"content-length", b"transfer-encoding"} & set(names)) <= 1, lines
        heard = _skip_body(heard[head.end() :], dict(line.split(b": ", 1) for line in lines))
        count += 1
    return count


def _skip_body(rest: bytes, headers: dict[bytes, bytes]) -> bytes:
    if b"transfer-encoding" not in headers:
        return rest[int(headers.get(b"content-length", b"0")) :]
    while rest:
        size = _CHUNK.match(rest)
        if size is None:
            assert re.fullmatch(rb"[0-9a-f]*\r?", rest), f"no chunk: {rest!r:.100}"
            return b""
        length = int(size[1], 16)
        ends, rest = rest[size.end() + length :][:2], rest[size.end() + length + 2 :]
        assert b"\r\n".startswith(ends), f"no end of a chunk: {ends!r}"
        if length == 0:
            return rest
    return b""


async def _converse(doors: Doors, door: str, pieces: list[bytes]) -> bytes:
    """Say the pieces, close the half, and hear all that comes."""
    reader, writer = await doors.connect(door)
    try:
        hearing = asyncio.create_task(read_all(reader))
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
        return await hearing
    finally:
        writer.transport.abort()


def _memory_kib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


@asynccontextmanager
async def reporting(fuzzer: Fuzzer) -> AsyncIterator[None]:
    """Say every ten seconds how far it is."""

    async def report() -> None:
        began, shown = time.monotonic(), 0
        while True:
            await asyncio.sleep(10)
            tally = fuzzer.tally
            for failure in tally.failures[shown : shown + 20]:
                print(failure, flush=True)
            shown = len(tally.failures)
            rate = tally.cases / (time.monotonic() - began)
            print(
                f"{tally.cases} cases, {rate:.0f} a second, {tally.heard} requests passed, "
                f"{len(tally.failures)} failures, slowest {tally.slowest_seconds:.1f} s, "
                f"peak {tally.peak_kib >> 10} MiB",
                flush=True,
            )

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()


async def fuzz(seed: int, seconds: float, first: int = 0, most: int = 10**9) -> Tally:
    """Run cases; give what they found."""
    fuzzer = Fuzzer(seed)
    async with reporting(fuzzer):
        await fuzzer.run(seconds, first, most)
    return fuzzer.tally


def main() -> int:
    """Fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(description="Fuzz the HTTP proxy with damaged requests and answers.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="Run this case only.")
    options = parser.parse_args()
    first, most = (0, 10**9) if options.case is None else (options.case, 1)
    tally = asyncio.run(fuzz(options.seed, options.seconds, first, most))
    print(
        f"{tally.cases} cases, {tally.heard} requests passed, peak {tally.peak_kib >> 10} MiB, answers: ",
        end="",
    )
    print(", ".join(f"{code} {count}" for code, count in tally.statuses.most_common()))
    for failure in tally.failures[-20:]:
        print(failure)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
