"""What calls have in common: connections, the event loop, the process; and who gets how much of it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from credentials.injection import Form, Injection
from sandboxes.egress.codec import ControlError
from sandboxes.egress.messages import Done, Refused
from sandboxes.proxy import __main__ as proxy_main
from sandboxes.proxy import shares
from sandboxes.proxy.access import HttpCaps
from sandboxes.proxy.answering import _Steps
from sandboxes.proxy.channel import Channel, make_pair
from sandboxes.proxy.control import Configure, Declare, OpenCall
from sandboxes.proxy.entries import DoorEntry, TargetEntry
from sandboxes.proxy.ledger import Digest
from sandboxes.proxy.process import ProxyChild, ProxyLimits
from sandboxes.proxy.scanning import Scanner
from sandboxes.proxy.shares import Share, Shares
from sandboxes.proxy.unpacking import Unpacker
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    Doors,
    Target,
    answering,
    opening,
    permit,
    proxying,
    running,
    serving,
)

GET = b"GET /a HTTP/1.1\r\nHost: pages.example\r\nConnection: close\r\n\r\n"
STRANGE = b"GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n"
INJECTION = Injection("api", Form.BEARER, {"token": "tok-0f1e2d3c4b5a69788796a5b4c3d2e1f0"})
SLOW = "".join(f"%25{byte:02x}" for byte in INJECTION.fields["token"].encode()).encode() * 4_000
"""Half a megabyte that is searched at the lowest speed there is."""


def take(share: Share, count: int) -> int:
    """Take so many connections; give how many there were to be had."""
    return sum(not share.find_problem() for _ in range(count))


def test_gives_a_call_as_many_connections_as_it_may_have() -> None:
    share = Shares(100).open(16)
    assert take(share, 20) == 16
    assert "the call holds 16 connections already" in share.find_problem()
    share.give_back()
    assert take(share, 2) == 1


def test_gives_a_call_its_part_where_others_hold_everything() -> None:
    all_calls = Shares(40)
    greedy = [all_calls.open(16) for _ in range(3)]
    assert [take(one, 16) for one in greedy] == [16, 16, 13]  # the last: its third of forty
    modest = all_calls.open(16)
    assert take(modest, 16) == 10
    assert "try again" in modest.find_problem()


def test_has_one_connection_for_each_call_when_there_are_far_too_many() -> None:
    all_calls = Shares(4)
    assert sum(take(all_calls.open(16), 16) for _ in range(40)) <= 8 + 40
    assert take(all_calls.open(16), 16) == 1


def test_gives_nothing_once_the_call_is_closed() -> None:
    share = Shares(4).open(16)
    share.close()
    share.close()
    assert take(share, 1) == 0


def test_counts_on_the_descriptors_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    all_calls = Shares(1_000)
    assert [take(all_calls.open(16), 16) for _ in range(2)] == [16, 8]


async def test_lets_calls_work_by_turns_however_much_one_has_to_do() -> None:
    all_calls, order = Shares(4), []
    greedy, modest = all_calls.open(16), all_calls.open(16)

    async def work(share: Share, name: str) -> None:
        async with share.work():
            order.append(name)

    await asyncio.gather(*(work(greedy, "greedy") for _ in range(9)), work(modest, "modest"))
    assert order.index("modest") <= 1


async def test_lets_what_is_ready_come_between_two_pieces_of_work() -> None:
    share, order = Shares(4).open(16), []

    async def work() -> None:
        async with share.work():
            order.append("work")
            asyncio.get_running_loop().call_soon(order.append, "other")

    await asyncio.gather(work(), work())
    assert order == ["work", "other", "work", "other"]


async def test_gives_a_turn_back_that_was_cancelled() -> None:
    share = Shares(4).open(16)
    async with share.work():
        waiting = [asyncio.ensure_future(share.work().__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
    async with asyncio.timeout(PATIENCE_SECONDS), share.work():
        pass


def test_searches_a_long_answer_in_small_pieces() -> None:
    steps = _Steps(Unpacker(""), Scanner(INJECTION), Digest(False), len(SLOW))
    pieces = list(steps.cut(SLOW))
    assert b"".join(pieces) == SLOW
    assert max(map(len, pieces)) <= shares.PIECE_BYTES


async def stall(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def hold(doors: Doors, count: int) -> list[asyncio.StreamWriter]:
    """Make connections that wait for an answer."""
    made = [await doors.connect("pages") for _ in range(count)]
    for _, writer in made:
        writer.write(GET)
    return [writer for _, writer in made]


async def wait_for(target: Target, count: int) -> None:
    """Wait until so many connections reached a target."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while target.connections < count:
            await asyncio.sleep(0.005)


async def test_tells_a_client_that_sends_at_once_why_it_is_turned_away() -> None:
    async with (
        serving(stall) as target,
        running(target.declare()) as child,
        opening(child, permit()) as doors,
    ):
        writers = await hold(doors, 16)
        await wait_for(target, 16)
        answer = await doors.say(GET * 20, "pages")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"the call holds 16 connections already" in answer
        for writer in writers:
            writer.transport.abort()


async def test_lets_another_call_through_when_one_holds_all_it_can() -> None:
    child = await ProxyChild.launch(lambda _: None)
    async with serving(stall) as target, serving(answering(OK), "quick") as quick:
        try:
            await child.ask(Configure(child.next_number(), 16, 256, 5, 16), Done)
            for one in (target, quick):
                await child.ask(Declare(child.next_number(), TargetEntry.write(one.declare())), Done)
            async with opening(child, permit()) as greedy:
                async with opening(child, permit(target="quick"), name="c2") as modest:
                    writers = await hold(greedy, 16)
                    await wait_for(target, 16)
                    said = await modest.say(GET.replace(b"pages", b"quick"), "quick")
                    assert said.startswith(b"HTTP/1.1 200 ")
                    for writer in writers:
                        writer.transport.abort()
        finally:
            await child.end()


def test_is_set_to_what_a_process_of_two_gibibytes_can_bear() -> None:
    limits = ProxyLimits()
    assert limits.connections_at_once == 16
    mebibytes_of_one = 2  # measured, where nobody reads a long answer
    kept = shares.KEPT_BYTES // 1024**2
    assert (2 * limits.connections_over_all) * mebibytes_of_one + kept < 2 * 1024


def read_kib(pid: int) -> int:
    """Give how much memory a process has, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def test_keeps_no_answers_that_nobody_reads() -> None:
    many = permit(caps=HttpCaps(requests=1_000_000))
    async with serving(answering(OK)) as target, proxying(target, many) as doors:
        _, writer = await doors.connect("pages")
        before = read_kib(doors.pid)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                for _ in range(200):
                    writer.write(STRANGE * 1_000)
                    await writer.drain()
        assert read_kib(doors.pid) - before < 4 * 1024
        writer.transport.abort()


async def test_ends_a_connection_that_sends_refused_requests_without_end() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        answer = await doors.say(STRANGE * 2_000, "pages")
        assert answer.count(b" 403 ") == 1_256
        assert b"HTTP/1.1 429 " in answer
        assert b"may send no more" in answer


async def test_lets_others_come_between_requests_that_came_at_once() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        flood = asyncio.ensure_future(doors.say(STRANGE * 1_200 + GET, "pages"))
        assert b"200 OK" in await doors.say(GET, "pages")
        await flood


async def test_goes_on_when_one_call_cannot_be_opened_for_a_reason_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise UnicodeError("a secret")

    monkeypatch.setattr(proxy_main, "OpenedCall", fail)
    ours, theirs = make_pair()
    service = proxy_main.Service(Configure(0, 16, 256, 5), Channel(ours))
    request = OpenCall(7, "c1", [DoorEntry("")], [], "", "", 1_000)
    answer = await service.answer(request, [theirs.detach()])
    assert answer == Refused(7, "the call cannot be opened: UnicodeError")
    ours.close()


def list_descriptors() -> set[int]:
    return {int(one.name) for one in Path("/proc/self/fd").iterdir()}


async def test_takes_no_packet_without_its_descriptors_for_one_with_them() -> None:
    ours, theirs = make_pair()
    channel, other = Channel(ours), Channel(theirs)
    used = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        channel.send(json.dumps({"op": "x"}).encode(), used)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 2, hard))
        packet = await other.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert packet == (b'{"op": "x"}', [])
    for descriptor in used:
        os.close(descriptor)
    channel.close()
    other.close()


async def test_refuses_to_send_what_it_cannot_copy_and_leaves_no_copy() -> None:
    ours, theirs = make_pair()
    channel = Channel(ours)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = list_descriptors()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 2, hard))
        with pytest.raises(ControlError, match="cannot be copied"):
            channel.send(b"{}", [ours.fileno()] * 300)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list_descriptors() == before
    channel.close()
    theirs.close()
