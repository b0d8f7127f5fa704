"""What the way of a call costs by itself: the path without sandbox and Vault, beside the bare mTLS echo.

    python -m bench.bench_path [--rounds 30] [--profile FILE]

The broker's own part of a call, in a process of its own on a real SQLite file; a tool answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from bench.echo import MUTUAL, open_mutual_echo, write_certificates
from bench.measure import Pacing, Report, Stages, Subject, measure
from bench.path_server import DRAFT, IDENTITY, LOOKUP, load_shop

REQUESTS = {
    LOOKUP: '{"orderId": "A-1042"}',
    DRAFT: '{"orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}, "comment": "bench"}',
}
READ, KEYED_READ, WRITE = "read without a key", "read with a key", "write"
REFUSED, REPLAYED = "refused: no grant", "replayed write"
KEY = "toolcrib-idempotency-key"
PROBED = "shop.v1.Orders/LookupRefund"


class Caller:
    """One agent on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        contracts = load_shop()[0].contracts
        self._requests = {
            method: contracts[method].canonical(contracts[method].parse_request_json(text))
            for method, text in {**REQUESTS, PROBED: '{"idempotencyKey": "k"}'}.items()
        }
        self._send = {method: channel.unary_unary(f"/{method}") for method in self._requests}
        self._keys = (f"{uuid.uuid4().hex}{number}" for number in itertools.count())
        self._used = next(self._keys)

    def subjects(self) -> list[Subject]:
        """What is measured."""
        calls = {
            READ: self._read,
            KEYED_READ: self._read_with_key,
            WRITE: self._write,
            REPLAYED: self._replay,
            REFUSED: self._refused,
        }
        return [Subject(name, call, MUTUAL) for name, call in calls.items()]

    async def _read(self) -> Stages | None:
        await self._send[LOOKUP](self._requests[LOOKUP])
        return None

    async def _read_with_key(self) -> None:
        await self._send[LOOKUP](self._requests[LOOKUP], metadata=((KEY, next(self._keys)),))

    async def _write(self) -> None:
        await self._send[DRAFT](self._requests[DRAFT], metadata=((KEY, next(self._keys)),))

    async def _replay(self) -> None:
        await self._send[DRAFT](self._requests[DRAFT], metadata=((KEY, self._used),))

    async def _refused(self) -> None:
        try:
            await self._send[PROBED](self._requests[PROBED])
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error.details()
            return
        raise AssertionError("a call without a grant was answered")


@asynccontextmanager
async def open_path(folder: Path, profile: str) -> AsyncIterator[Caller]:
    """Hold a broker's path in a process of its own, and a channel to it."""
    write_certificates(folder, IDENTITY)
    command = [sys.executable, "-m", "bench.path_server", str(folder), *([profile] if profile else [])]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / "client.key").read_bytes(),
        (folder / "client.pem").read_bytes(),
    )
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            yield Caller(channel)
    finally:
        process.stdin.close()
        await process.wait()


async def measure_path(folder: Path, options: argparse.Namespace) -> Report:
    """Measure the echo and, beside it, calls."""
    async with AsyncExitStack() as stack:
        for name in ("echo", "path"):
            (folder / name).mkdir()
        echo = await stack.enter_async_context(open_mutual_echo(folder / "echo"))
        caller = await stack.enter_async_context(open_path(folder / "path", options.profile))
        subjects = caller.subjects()
        if options.only:
            subjects = [subject for subject in subjects if subject.name == options.only]
        return await measure("path", [echo, *subjects], Pacing(rounds=options.rounds))


def main() -> int:
    """Read the arguments, measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="bursts of each subject (default 30)")
    parser.add_argument("--only", default="", help=f'one subject, for example "{READ}"')
    parser.add_argument("--profile", default="", help="a file for the profile of the broker's event loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        report = asyncio.run(measure_path(Path(folder), options))
    print(report.table())
    print(f"written: {report.write()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
