"""The fault table: with each part broken in turn, every call is answered, and nothing is guessed.

Each fault comes before a handful of calls, and under a handful that run. Then it must hold that

1. every call is answered by the broker, with a result or a reason, by its deadline and a second: the caller
   gives up then, and a caller that gave up has no reason in its hand;
2. every effect at the target belongs to a call whose intent is in the state, and no call has two;
3. every answer SUCCEEDED is in the state;
4. once the part is mended, calls run again, and a retry makes no second effect.

"In the state" is what another connection reads from the database file.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.dev import DevOptions
from broker.keys import read_key_file
from broker.store.records import ClaimScope
from tests.e2e import grants
from tests.e2e.breakable import BreakableThread, Disk, OwnEngine, Tap, own_disk, own_engine
from tests.e2e.caller import Reply, ToolCaller
from tests.e2e.stack import MISCHIEF, Crib
from tests.parts import without
from tests.parts.crib import CACHE_DIR, Switchboard

READ, WRITE = "mischief.v1.Mischief/Read", "mischief.v1.Mischief/Write"
TOOL_SECONDS = {READ: 3, WRITE: 5}
ANSWER_SECONDS = 1
RAN = {"DISPATCHED", "SUCCEEDED", "FAILED", "IN_DOUBT", "NEEDS_HUMAN"}


@dataclass
class Breakable:
    """The running Toolcrib and what can be done to it."""

    crib: Crib
    tap: Tap
    disk: Disk
    engine: OwnEngine
    switchboard: Switchboard
    stopped_writing: bool = False

    @property
    def database(self) -> Path:
        return self.crib.stack.settings.state.path

    def mend(self) -> None:
        """Make everything whole again."""
        self.tap.mend()
        self.disk.mend()
        self.engine.mend()
        self.switchboard.offset = timedelta()
        if self.stopped_writing:  # a store whose disk did not sync writes no more: nobody knows what is on it
            self.crib.run(self.crib.stack.restart_broker())
            self.stopped_writing = False
        if self.crib.stack.vault.read("sys/seal-status")["sealed"]:
            self.crib.stack.vault.unseal()


def seal(parts: Breakable) -> None:
    parts.crib.stack.vault.seal()


def break_sync(parts: Breakable) -> None:
    parts.disk.break_sync(parts.database)
    parts.stopped_writing = True


def set_delay(seconds: float) -> Callable[[Breakable], None]:
    return lambda parts: setattr(parts.tap, "delay_seconds", seconds)


def set_clock(days: float) -> Callable[[Breakable], None]:
    return lambda parts: setattr(parts.switchboard, "offset", timedelta(days=days))


FAULTS: dict[str, Callable[[Breakable], None]] = {
    "Vault refuses connections": lambda parts: parts.tap.refuse(),
    "Vault is sealed": seal,
    "Vault does not answer": lambda parts: parts.tap.stall(),
    "Vault is slow": set_delay(0.4),
    "Vault answers when nobody waits any more": set_delay(6),
    "the engine is killed": lambda parts: parts.engine.kill(),
    "the engine does not answer": lambda parts: parts.engine.stall(),
    "the state's disk hangs": lambda parts: parts.disk.hang(),
    "the state's disk is full": lambda parts: parts.disk.fill(parts.database),
    "the state's disk does not sync": break_sync,
    "the clock is three days ahead": set_clock(3),
    "the clock is three days behind": set_clock(-3),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Breakable]:
    for part in ("engine", "openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    folder = tmp_path_factory.mktemp("faults")
    with (
        own_disk(folder) as disk,
        own_engine(folder / "e", CACHE_DIR.parent / "faults" / "engine") as engine,
    ):
        options = DevOptions(bundles=(MISCHIEF,), tenants=("shop",), engine_url=engine.base_url)
        thread = BreakableThread(folder / "state", CACHE_DIR, options, disk)
        with thread as crib:
            crib.grant(grants.MISCHIEF)
            yield Breakable(crib, thread.stack.tap, disk, engine, thread.switchboard)


@pytest.fixture
def parts(running: Breakable) -> Iterator[Breakable]:
    yield running
    running.mend()


@dataclass(frozen=True)
class Asked:
    """One call of the handful, and what came of it."""

    method: str
    arguments: dict[str, Any]
    key: str
    reply: Reply


class Handful:
    """A few reads and writes at once."""

    def __init__(self, agent: ToolCaller, seconds: int) -> None:
        self._agent = agent
        shapes: list[tuple[str, dict[str, Any]]] = [
            (READ, {"how": "sleep", "seconds": seconds}),
            (WRITE, {"how": "fine"}),
            (WRITE, {"how": "sleep_first", "seconds": seconds}),
            (WRITE, {"how": "sleep_after", "seconds": seconds}),
        ]
        self._calls = [
            (method, arguments, key, self._start(method, arguments, key))
            for method, arguments in shapes
            for key in [uuid.uuid4().hex]
        ]

    def _start(self, method: str, arguments: dict[str, Any], key: str) -> Any:
        # Whoever is not answered by then gives up and has no reason.
        return self._agent.start(method, arguments, key=key, timeout=TOOL_SECONDS[method] + ANSWER_SECONDS)

    def finish(self) -> list[Asked]:
        return [
            Asked(method, arguments, key, self._agent.finish(method, future))
            for method, arguments, key, future in self._calls
        ]


def read_state(crib: Crib) -> dict[str, str]:
    """Read the states of all calls with a key that may have run, by key, as another process sees them."""
    path = crib.stack.settings.state.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT key, state FROM calls WHERE key <> '' ORDER BY attempt").fetchall()
    return dict(rows)


def read_effects(crib: Crib) -> Counter[str]:
    """Count the effects at the target by the key that it got."""
    rows = crib.stack.postgres.query("SELECT idempotency_key FROM public.effects")
    return Counter(str(row[0]) for row in rows)


def target_keys(crib: Crib, keys: list[str]) -> dict[str, str]:
    derive = read_key_file(crib.stack.settings.state.key_file).target_key
    scope = ClaimScope("shop", "dev", "refund-desk", WRITE, "")
    return {derive(replace(scope, key=key)): key for key in keys}


def assert_nothing_guessed(crib: Crib, asked: list[Asked]) -> None:
    """Check rules 2 and 3."""
    state, effects = read_state(crib), read_effects(crib)
    named = target_keys(crib, list(state))
    assert effects.keys() <= named.keys(), "an effect of a call that the state does not know"
    assert all(count == 1 for count in effects.values()), "a second effect"
    without_intent = [named[key] for key in effects if state[named[key]] not in RAN]
    assert without_intent == []
    succeeded = [one.key for one in asked if one.reply.code == "OK" and one.method == WRITE]
    assert {state.get(key) for key in succeeded} <= {"SUCCEEDED"}


def assert_answered(asked: list[Asked]) -> None:
    """Check rule 1."""
    silent = [one for one in asked if one.reply.code != "OK" and not one.reply.reason]
    assert silent == []


def assert_runs_again(crib: Crib, asked: list[Asked]) -> None:
    """Check rule 4."""
    with crib.caller() as agent:
        deadline = time.monotonic() + 30
        while (reply := agent.call(WRITE, {"how": "fine"}, key=uuid.uuid4().hex)).code != "OK":
            assert reply.retry_after_seconds, reply
            assert time.monotonic() < deadline, reply.message
            time.sleep(0.3)
        again = [
            replace(one, reply=agent.call(WRITE, one.arguments, key=one.key))
            for one in asked
            if one.method == WRITE
        ]
    assert_nothing_guessed(crib, again)


def leftovers(crib: Crib) -> dict[str, object]:
    """List what the calls left; the engine and the egress process are others than at the start."""
    return {name: value for name, value in crib.leftovers().items() if name != "processes"}


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_what_comes_after_the_fault(parts: Breakable, fault: str):
    FAULTS[fault](parts)
    with parts.crib.caller() as agent:
        asked = Handful(agent, seconds=1).finish()
    parts.mend()
    print(fault, [one.reply.reason or one.reply.code for one in asked])
    assert_answered(asked)
    assert_nothing_guessed(parts.crib, asked)
    assert_runs_again(parts.crib, asked)


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_what_runs_when_the_fault_comes(parts: Breakable, fault: str):
    with parts.crib.caller() as agent:
        calls = Handful(agent, seconds=2)
        time.sleep(0.8)
        FAULTS[fault](parts)
        asked = calls.finish()
    parts.mend()
    print(fault, [one.reply.reason or one.reply.code for one in asked])
    assert_answered(asked)
    assert_nothing_guessed(parts.crib, asked)
    assert_runs_again(parts.crib, asked)


@pytest.mark.parametrize("days", [3, -3])
def test_refuses_an_identity_by_the_brokers_clock_with_its_reason(parts: Breakable, days: int):
    set_clock(days)(parts)
    with parts.crib.caller() as agent:
        reply = agent.call(READ, {"how": "fine"})
    assert (reply.code, reply.reason) == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED")
    assert "the client certificate is valid from" in reply.message


def test_goes_on_while_the_clock_jumps(parts: Breakable):
    profile = parts.crib.stack.profile("refund-desk", ttl_seconds=20 * 86_400)
    with ToolCaller(profile, parts.crib.contracts) as agent:
        calls = Handful(agent, seconds=1)
        for days in (3, 1, 9, 0, 3):
            set_clock(days)(parts)
            time.sleep(0.3)
        asked = calls.finish()
    assert {one.reply.code for one in asked if one.method == WRITE} == {"OK"}
    assert_nothing_guessed(parts.crib, asked)


def test_leaves_nothing_behind(parts: Breakable):
    deadline = time.monotonic() + 60
    while (left := leftovers(parts.crib)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == {}


def test_answers_when_vault_itself_is_stopped(running: Breakable):
    with running.crib.caller() as agent:
        calls = Handful(agent, seconds=2)
        time.sleep(0.8)
        running.crib.stack.vault.stop()
        asked = [*calls.finish(), *Handful(agent, seconds=1).finish()]
    assert_answered(asked)
    assert_nothing_guessed(running.crib, asked)
