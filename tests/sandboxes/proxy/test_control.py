"""What broker and HTTP proxy say to each other: what does not check is no message, and no secret is shown."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from credentials.injection import Form, Injection
from sandboxes.egress.codec import ControlError
from sandboxes.egress.messages import Done
from sandboxes.proxy.access import HttpAccess, HttpCaps, HttpTarget
from sandboxes.proxy.channel import Channel, make_pair
from sandboxes.proxy.control import FROM_CHILD, MAX_MESSAGE_BYTES, REQUESTS, Declare, OpenCall, decode, encode
from sandboxes.proxy.entries import AccessEntry, DoorEntry, TargetEntry
from tools.http_rules import parse_rule

SECRET = "s3cr3t-that-nobody-reads"
ACCESS = HttpAccess(
    target="pages",
    allow=(parse_rule("GET /a/{id:int}?q={text}", ["q"], {"x-kind": "a|b"}),),
    narrowed=(parse_rule("GET /a/{id:int}?*"),),
    caps=HttpCaps(1, 2, 1.5, 3),
    injection=Injection("pages", Form.BEARER, {"token": SECRET}),
)
TARGET = HttpTarget("pages", "127.0.0.1", 80, ("http://a.example",), "", ("10.0.0.0/8",), True)
Ends = tuple[Channel, Channel]


def make_open() -> OpenCall:
    return OpenCall(1, "c1", [DoorEntry(""), DoorEntry("pages")], [AccessEntry.write(ACCESS)], "", "", 1)


def document() -> dict[str, Any]:
    return json.loads(encode(make_open()))


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, theirs = make_pair()
    pair = Channel(ours), Channel(theirs)
    yield pair
    for end in pair:
        end.close()


def test_gives_an_access_back_as_it_was() -> None:
    message = decode(encode(make_open()), REQUESTS)
    assert isinstance(message, OpenCall)
    assert message.accesses[0].access == ACCESS


def test_gives_a_target_back_as_it_was() -> None:
    message = decode(encode(Declare(1, TargetEntry.write(TARGET))), REQUESTS)
    assert isinstance(message, Declare)
    assert message.target.target == TARGET


@pytest.mark.parametrize(
    "change",
    [
        {"op": "done"},
        {"seq": True},
        {"call": "../c"},
        {"doors": []},
        {"doors": [{"target": "other"}]},
        {"doors": [{"target": "pages"}, {"target": "pages"}]},
        {"doors": {"target": "pages"}},
        {"accesses": None},
        {"milliseconds": 0},
        {"ca_key_pem": "\x00"},
        {"more": 1},
    ],
)
def test_refuses_an_opening_that_does_not_check(change: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        decode(json.dumps(document() | change).encode(), REQUESTS)


@pytest.mark.parametrize(
    "change",
    [
        {"caps": None},
        {"opaque": 1},
        {"opaque": True},
        {"allow": None},
        {"injection": []},
        {"injection": {"credential": "c", "form": "bearer", "fields": {"key": SECRET}}},
        {"injection": {"credential": "c", "form": SECRET, "fields": {"token": "a"}}},
        {"injection": {"credential": "c", "form": "bearer", "fields": {"token": [SECRET]}}},
        {"injection": {"credential": "c", "form": "bearer", "fields": {"token": SECRET + "\0"}}},
    ],
)
def test_refuses_an_access_that_does_not_check_and_shows_no_secret(change: dict[str, object]) -> None:
    opening = document()
    opening["accesses"][0] |= change
    with pytest.raises(ControlError) as caught:
        decode(json.dumps(opening).encode(), REQUESTS)
    assert SECRET not in str(caught.value)


def test_refuses_a_rule_that_is_none() -> None:
    opening = document()
    opening["accesses"][0]["allow"][0]["text"] = "TRACE /"
    message = decode(json.dumps(opening).encode(), REQUESTS)
    assert isinstance(message, OpenCall)
    with pytest.raises(ControlError, match="TRACE"):
        _ = message.accesses[0].access


def test_shows_no_secret_in_a_message() -> None:
    assert SECRET not in repr(make_open()) + repr(make_open().accesses[0])


def test_does_not_write_what_is_longer_than_a_packet() -> None:
    access = AccessEntry.write(HttpAccess("pages", (parse_rule("GET /" + "a" * 900),) * 200))
    with pytest.raises(ControlError, match="too long"):
        encode(OpenCall(1, "c1", [DoorEntry("")], [access], "", "", 1))


async def test_carries_descriptors_beside_a_message(ends: Ends) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as door:
        ends[0].send(b"open", [door.fileno(), door.fileno()])
        body, fds = await ends[1].receive() or (b"", [])
        assert (body, len(fds)) == (b"open", 2)
        assert all(os.fstat(fd).st_ino == os.fstat(door.fileno()).st_ino for fd in fds)
        for fd in fds:
            os.close(fd)


async def test_keeps_packets_until_the_other_side_reads_them(ends: Ends) -> None:
    for number in range(200):
        ends[0].send(f"{number}".encode() + b"x" * 10_000)
    read = [(await ends[1].receive() or (b"", []))[0].rstrip(b"x") for _ in range(200)]
    assert read == [f"{number}".encode() for number in range(200)]


async def test_refuses_a_packet_that_is_longer_than_any_message(ends: Ends) -> None:
    ends[0].send(b"x" * (MAX_MESSAGE_BYTES + 10))
    with pytest.raises(ControlError, match="longer"):
        await ends[1].receive()


async def test_says_that_the_other_side_is_gone(ends: Ends) -> None:
    ends[0].close()
    assert await ends[1].receive() is None
    with pytest.raises(ConnectionError):
        ends[1].send(encode(Done(1)))


def test_refuses_a_record_of_an_unknown_outcome() -> None:
    with pytest.raises(ControlError):
        decode(b'{"op":"ended","call":"c","connection":{"target":""}}', FROM_CHILD)
