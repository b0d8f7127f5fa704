"""What cleaning costs by format and size, and whether other calls wait while the worst content is cleaned.

1. Each format and size as a ratio to TEXT of one KiB, through the same `Cleaner` as the broker's.
2. A gRPC echo in the process and on the event loop of the cleaner: bare, beside the worst content in its
   worker process, and, for comparison, beside the same content in a thread. What tells them apart is how long
   a single echo may wait (p99).

    python -m bench.bench_content [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bench.measure import Pacing, Report, Subject, measure
from broker.cleaning import Cleaner, NotCleaned
from tests.tools.protos import load_contract
from tools.content.formats import clean_content
from tools.content.kinds import ContentInvalid, Format

CONTRACT = load_contract(
    "message Response {"
    + "".join(
        f"string {form.name.lower()} = {form.value}"
        f" [(toolcrib.v1.field) = {{untrusted: true, content: {form.name}}}];"
        for form in Format
    )
    + "}"
)
SIZES = (1024, 16 * 1024, 100 * 1024)
MAX_P99_RATIO = 3.0
"""Of an echo beside the worst content to a bare one, where there is a processor for each."""
_UNITS = {
    Format.TEXT: "plain text, a\u200b b. ",
    Format.HTML: "<p class=a style='color:red'>some <b>text</b> &amp; <a href=x>y</a> <i hidden>x</i></p>\n",
    Format.MARKDOWN: "Some *text* and [more](https://x.example), `code`.\n\n- item\n\n",
    Format.JSON: '{"name": "some text", "more": [1, 2.5, null]},',
}
WORST = "<style>" + ".a{color:red;margin:0}" * 8_000 + "</style>" + "<p>some &amp; text" * 15_000
"""It is cleaned to its end, by every step; what is worse is refused at once."""

Echo = Callable[[], Awaitable[None]]


def make_message(form: Format, size: int) -> Message:
    """Make a result with one field of a format and about that many characters."""
    text = _UNITS[form] * max(size // len(_UNITS[form]), 1)
    document = f"[{text.rstrip(',')}]" if form is Format.JSON else text
    return ParseDict({form.name.lower(): document}, GetMessageClass(CONTRACT.response_descriptor)())


async def clean(cleaner: Cleaner, message: Message) -> None:
    """Clean one result."""
    await cleaner.clean(CONTRACT, message)


class Background:
    """What goes on beside an echo."""

    def __init__(self, cleaner: Cleaner) -> None:
        self._message = ParseDict({"html": WORST}, GetMessageClass(CONTRACT.response_descriptor)())
        self._works: dict[str, Echo] = {
            "process": lambda: clean(cleaner, self._message),
            "thread": lambda: asyncio.to_thread(_clean_here),
        }
        self._task: asyncio.Task[None] | None = None

    async def switch(self, work: str, _calls: int = 0) -> None:
        """Go on with one kind of work from now on; with none for "nothing"."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if work in self._works:
            self._task = asyncio.create_task(self._repeat(self._works[work]))
            await asyncio.sleep(0.3)

    async def _repeat(self, work: Echo) -> None:
        while True:
            with contextlib.suppress(NotCleaned):
                await work()


def _clean_here() -> None:
    with contextlib.suppress(ContentInvalid):
        clean_content(Format.HTML, WORST)


@contextlib.asynccontextmanager
async def open_echo():
    """Serve an echo in this process, and give a call of it."""

    async def answer(request: bytes, _: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"Say": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        say = channel.unary_unary("/Echo/Say")

        async def call() -> None:
            await say(b"x" * 100)

        yield call
    await server.stop(None)


async def run(rounds: int) -> bool:
    """Measure both and print the tables.

    Returns:
        Whether other calls did not wait.
    """
    cleaner = Cleaner()
    try:
        print((await _measure_sizes(cleaner, rounds)).table())
        print()
        return _judge(await _measure_echo(cleaner, rounds))
    finally:
        await cleaner.close()


async def _measure_sizes(cleaner: Cleaner, rounds: int) -> Report:
    floor = f"{Format.TEXT.name} of {SIZES[0] // 1024} KiB"
    subjects = [
        Subject(
            f"{form.name} of {size // 1024} KiB",
            partial(clean, cleaner, make_message(form, size)),
            floor,
            4,
            1,
        )
        for form in Format
        for size in SIZES
    ]
    return await measure("content", subjects, Pacing(rounds=rounds))


async def _measure_echo(cleaner: Cleaner, rounds: int) -> Report:
    background = Background(cleaner)
    async with open_echo() as call:
        subjects = [
            Subject(name, call, "echo", 100, 5, partial(background.switch, work))
            for name, work in (
                ("echo", "nothing"),
                ("echo beside the worker", "process"),
                ("echo beside a thread", "thread"),
            )
        ]
        report = await measure("content-echo", subjects, Pacing(rounds=rounds))
        await background.switch("nothing")
    return report


def _judge(report: Report) -> bool:
    print(report.table())
    rows = {row.name: row for row in report.rows}
    bare, again = rows["echo"], rows["echo (again)"]
    ratios = {name: rows[name].p99_ms / bare.p99_ms for name in rows}
    shown = (again.name, "echo beside the worker", "echo beside a thread")
    print("p99 against a bare echo:", ", ".join(f"{name} {ratios[name]:.2f}" for name in shown))
    return ratios["echo beside the worker"] <= MAX_P99_RATIO


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when other calls waited.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="bursts of each subject (default 10)")
    return 0 if asyncio.run(run(parser.parse_args().rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
