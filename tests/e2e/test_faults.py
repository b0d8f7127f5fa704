"""A part that goes away in the middle of a call: each call is answered, and nothing is guessed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.dev import DevOptions
from sandboxes.engine import Engine
from tests.e2e import grants
from tests.e2e.stack import MISCHIEF, SHOP, Crib, CribThread
from tests.e2e.waiting import wait_for_container
from tests.parts import without
from tests.parts.crib import CACHE_DIR

READ, WRITE = "mischief.v1.Mischief/Read", "mischief.v1.Mischief/Write"


@pytest.fixture
def own_crib(tmp_path: Path, engine: Engine) -> Iterator[Crib]:
    """A Toolcrib of its own, whose parts may be broken."""
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    options = DevOptions(bundles=(SHOP, MISCHIEF), tenants=("shop",), engine_url=engine.base_url)
    with CribThread(tmp_path / "state", CACHE_DIR, options) as crib:
        crib.grant(grants.MISCHIEF + grants.READ)
        yield crib


def test_answers_when_vault_stops_while_a_tool_runs(own_crib: Crib):
    with own_crib.caller() as agent:
        call = agent.start(READ, {"how": "sleep", "seconds": 1})
        wait_for_container(own_crib)
        own_crib.stack.vault.stop()
        reply = agent.finish(READ, call)
    assert reply.code == "OK"
    assert own_crib.stack.broker.debts.count == 1  # visible, and tried again


def test_refuses_new_calls_while_vault_is_gone(own_crib: Crib):
    with own_crib.caller() as agent:
        own_crib.stack.vault.stop()
        reply = agent.call(READ, {"how": "fine"})
    assert (reply.code, reply.reason) == ("UNAVAILABLE", "CREDENTIALS_UNAVAILABLE")
    assert reply.retry_after_seconds


def test_says_which_part_is_missing_when_the_database_is_gone(own_crib: Crib):
    own_crib.stack.postgres.stop()
    with own_crib.caller() as agent:
        reply = agent.call("shop.v1.Orders/LookupOrder", {"order_id": "A-1042"})
    assert reply.reason == "CREDENTIALS_UNAVAILABLE"
    assert "orders_read" in reply.message


def test_is_in_doubt_when_the_container_is_killed_under_a_write(own_crib: Crib):
    with own_crib.caller() as agent:
        call = agent.start(WRITE, {"how": "sleep_after", "seconds": 3}, key=uuid.uuid4().hex)
        wait_for_container(own_crib)
        time.sleep(0.8)
        for container in own_crib.run(own_crib.stack.broker.fleet.leftovers()):
            own_crib.run(own_crib.stack.broker.fleet.end_container(container))
        reply = agent.finish(WRITE, call)
    assert reply.reason == "IN_DOUBT"
