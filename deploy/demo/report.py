"""Prints the story: 80 columns, plain when not a terminal, colour sparingly when it is one."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TextIO

from google.protobuf.timestamp_pb2 import Timestamp

from deploy.demo.agent_process import Outcome
from toolcrib.v1 import broker_pb2

WIDTH = 80
_LABEL = 11
_UNBROKEN = "\N{NO-BREAK SPACE}"
_GREEN, _RED, _BOLD = "32", "31", "1"


class Report:
    """Writes lines and counts the expectations that did not hold."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._colours = self._is_terminal and "NO_COLOR" not in os.environ
        self._step = ""
        self.failures = 0
        self.checks = 0

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
        self._write(f"\n{self._paint(text, _BOLD)}\n{'-' * min(len(text), WIDTH)}")

    def say(self, text: str) -> None:
        """Write a paragraph."""
        self._write(textwrap.fill(text, WIDTH, break_on_hyphens=False))

    def space(self) -> None:
        """Write an empty line."""
        self._write("")

    def item(self, label: str, text: str) -> None:
        """Write one labelled line of a call, wrapped under its own label."""
        lines = textwrap.fill(
            text or "-",
            WIDTH,
            initial_indent=f"  {label:<{_LABEL}}",
            subsequent_indent=" " * (_LABEL + 2),
            break_on_hyphens=False,
        )
        self._write(lines.replace(_UNBROKEN, " "))

    def expect(self, text: str, holds: bool) -> None:
        """Write whether something that the story promises is so."""
        self.checks += 1
        self.failures += not holds
        mark = self._paint("ok", _GREEN) if holds else self._paint("FAILED", _RED)
        self._write(textwrap.fill(text, WIDTH, initial_indent=f"  {mark} ", subsequent_indent="     "))

    def call(self, title: str, outcome: Outcome, record: broker_pb2.Call | None) -> None:
        """Write one call: what was asked, what came back, and what it took."""
        self._write(f"\n{self._paint(title, _BOLD)}")
        self.item("call", outcome.method)
        self.item("outcome", f"{_describe_outcome(outcome)}  in {outcome.millis:.0f} ms")
        if outcome.message:
            self.item("message", outcome.message)
        for violation in outcome.violations:
            self.item("", f"{violation['field']}: {violation['description']}")
        if record is not None:
            self._record(record)

    def left_over(self, found: dict[str, list[str]]) -> None:
        """Write what is left over, by kind."""
        for kind, things in found.items():
            self.item(kind, ", ".join(things) or "none")
        rest = [thing for things in found.values() for thing in things]
        self.expect(f"left over: {', '.join(rest) or 'nothing'}", not rest)

    @asynccontextmanager
    async def progress(self, text: str) -> AsyncIterator[None]:
        """Show that something is going on (`step` names it), with the seconds, and how long it took."""
        started = time.monotonic()
        ticking = asyncio.create_task(self._tick(text, started))
        if not self._is_terminal:
            self._write(f"{text} …")
        try:
            yield
        finally:
            ticking.cancel()
            self._out.write("\r\x1b[K" if self._is_terminal else "")
            self._write(f"{text}: {time.monotonic() - started:.1f} s")

    def step(self, text: str) -> None:
        """Name what is being done within `progress`."""
        self._step = text
        if not self._is_terminal:
            self._write(f"  {text}")

    async def _tick(self, text: str, started: float) -> None:
        while self._is_terminal:
            line = f"{text}: {self._step} … {time.monotonic() - started:.0f} s"
            self._out.write(f"\r\x1b[K{line[: WIDTH - 1]}")
            self._out.flush()
            await asyncio.sleep(0.3)

    def _record(self, record: broker_pb2.Call) -> None:
        stages = (f"{stage.stage} {stage.duration_micros / 1000:.1f}" for stage in record.stages)
        self.item("stages", join_unbroken(stages) + "  (ms)")
        if record.grant_id:
            self.item("grant", record.grant_id)
        for lease in record.leases:
            self.item("login", f"{lease.username} ({lease.credential})")
            dead = (
                f"confirmed dead {_clock(lease.confirmed_dead)}" if lease.HasField("confirmed_dead") else ""
            )
            self.item("", f"minted {_clock(lease.minted)}, {dead or 'STILL OWED'}")
        for sandbox in record.sandboxes:
            gone = f"gone {_clock(sandbox.gone)}" if sandbox.HasField("gone") else "STILL THERE"
            self.item("container", f"{sandbox.container_id[:12]} made {_clock(sandbox.made)}, {gone}")
        if not record.leases and not record.sandboxes:
            self.item("", "no login was minted and no container was made")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def join_unbroken(parts: Iterable[str]) -> str:
    """Join with commas so that wrapping never parts a name from its number."""
    return ", ".join(part.replace(" ", _UNBROKEN) for part in parts)


def _describe_outcome(outcome: Outcome) -> str:
    if outcome.code == "OK":
        return "OK, replayed" if outcome.is_replayed else "OK"
    return f"{outcome.code} {outcome.reason}".strip()


def _clock(stamp: Timestamp) -> str:
    moment = stamp.ToDatetime()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
