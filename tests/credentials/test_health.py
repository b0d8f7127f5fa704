"""What a Vault says of itself to anybody: real, sealed, no Vault at all, or silent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from credentials.dev_vault import DevVault
from credentials.health import VaultSilent, read_health


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that answers everything with one body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def say(**changes: object) -> bytes:
    health = {"version": "2", "initialized": True, "sealed": False, "server_time_utc": int(time.time())}
    return json.dumps(health | changes).encode()


def test_reads_version_and_clock_of_a_real_one(dev_vault: DevVault):
    health = read_health(dev_vault.address)
    assert (health.version, health.initialized, health.sealed) == (dev_vault.version, True, False)
    assert abs(health.clock_offset_seconds) < 5


def test_tells_a_sealed_one():
    with answering(say(sealed=True)) as address:
        assert read_health(address).sealed


def test_measures_a_clock_that_is_wrong():
    with answering(say(server_time_utc=int(time.time()) - 600)) as address:
        assert round(read_health(address).clock_offset_seconds, -1) == -600


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"version": "2"}', say(server_time_utc="soon")])
def test_does_not_take_another_server_for_a_vault(body: bytes):
    with answering(body) as address, pytest.raises(VaultSilent, match="is no Vault") as caught:
        read_health(address)
    assert caught.value.remedy == "correct vault.address"


def test_says_when_nobody_answers():
    with pytest.raises(VaultSilent, match="does not answer") as caught:
        read_health("http://127.0.0.1:1")
    assert "start it" in caught.value.remedy
