"""The check after each test sees what is left over: one leak of each kind is made and found."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import asyncpg
import docker
import pytest

from credentials.secret import Secret
from tests.e2e import grants
from tests.e2e.stack import Crib

LOOKUP = "shop.v1.Orders/LookupOrder"


@contextmanager
def a_container(crib: Crib) -> Iterator[None]:
    """A container of this installation that nobody removes."""
    client = docker.DockerClient(base_url=crib.stack.engine.base_url)
    labels = {
        "toolcrib.installation": crib.stack.broker.store.epoch.installation,
        "toolcrib.epoch": str(crib.stack.broker.store.epoch.number),
    }
    made = client.containers.create(crib.stack.base_image, ["sleep"], labels=labels)
    yield
    made.remove(force=True)
    client.close()


@contextmanager
def a_lease(crib: Crib) -> Iterator[None]:
    """A login that nobody ends; it is a role in PostgreSQL, too."""
    lease = crib.stack.vault.read("database/creds/shop-orders-read")
    yield
    crib.stack.vault.write("sys/leases/revoke", lease_id=lease["lease_id"], sync=True)


@contextmanager
def a_session(crib: Crib) -> Iterator[None]:
    """An open session of a login that was minted."""
    lease = crib.stack.vault.read("database/creds/shop-orders-read")
    login = crib.stack.postgres.login(lease["data"]["username"], Secret(lease["data"]["password"]))
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(**login))
    yield
    loop.run_until_complete(connection.close())
    loop.close()
    crib.stack.vault.write("sys/leases/revoke", lease_id=lease["lease_id"], sync=True)


@contextmanager
def a_process(_: Crib) -> Iterator[None]:
    process = subprocess.Popen(["sleep", "60"])
    yield
    process.kill()
    process.wait()


@contextmanager
def a_file(crib: Crib) -> Iterator[None]:
    path = crib.stack.settings.run_dir / "left"
    path.touch()
    yield
    path.unlink()


LEAKS = [
    (a_container, "containers"),
    (a_lease, "leases"),
    (a_lease, "roles"),
    (a_session, "sessions"),
    (a_process, "processes"),
    (a_file, "files"),
]


@pytest.mark.parametrize(("leak", "kind"), LEAKS, ids=[f"{leak.__name__}-{kind}" for leak, kind in LEAKS])
def test_sees(crib: Crib, leak, kind: str):
    with ExitStack() as stack:
        stack.enter_context(leak(crib))
        assert kind in crib.leftovers()


def test_sees_nothing_after_a_call(crib: Crib):
    crib.grant(grants.READ)
    with crib.caller() as agent:
        assert agent.call(LOOKUP, {"order_id": "A-1042"}).code == "OK"
    assert crib.leftovers() == {}
