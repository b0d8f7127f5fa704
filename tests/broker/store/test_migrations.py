"""What the files of earlier releases held is there after this one opened them, and means the same."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit import Verified, verify
from broker.model import CallState, GrantUse, LeaseRecord
from broker.store.backup import backup_store, restore_store
from broker.store.database import connect
from broker.store.inspection import look_into
from broker.store.moments import EPOCH
from broker.store.options import StoreOptions
from broker.store.records import AliasStep, Epoch
from broker.store.schema import migrate, read_migrations
from broker.store.sqlite import open_store, read_audit
from sandboxes.egress.records import lost_record
from tests.contracts.stores import (
    AUDIT_KEY,
    event_of,
    make_artefact,
    make_brake,
    make_call,
    make_event,
    make_lease,
    read_events,
    succeed,
)

OPTIONS = StoreOptions(AUDIT_KEY, "k1")
STEPS = read_migrations()
EARLIER = range(1, len(STEPS))
OLD_LEASE = LeaseRecord("l1", "a1", "orders", "v-l1", EPOCH + timedelta(microseconds=7))

_CALL = """
INSERT INTO calls (tenant, environment, call_id, agent, subject, method, tool_version, effect, key,
  fingerprint, attempt, epoch, state, started, ended, reason, message, failure, grant_id, result, labels,
  stages, sandboxes, tool_log)
VALUES ('acme', 'prod', ?, 'desk', '', 'm', '1', 'WRITE', '', 'f', 1, 7, ?, ?, 0, 0, '', '{}', 'g', ?, '[]',
  '[]', '[]', ?)
"""
_LEASE = """
INSERT INTO leases (tenant, environment, call_id, position, lease_id, accessor, credential, username, minted,
  confirmed_dead)
VALUES ('acme', 'prod', 'c1', ?, ?, ?, 'orders', ?, 7, ?)
"""


_VERSION = (
    "INSERT INTO versions VALUES ('acme', 'shop', ?, 'd', 'USABLE', x'00', 'm', 'i', 'a', 1, 'r', 2, '')"
)


def make_old(path: Path, schema: int) -> None:
    """Write a file as the release with this schema left it, when it was killed a while ago."""
    path.touch()
    with closing(connect(path, writes=True)) as old:
        migrate(old, STEPS[:schema])
        if schema == 1:
            old.execute("INSERT INTO installation VALUES (1, 'i', 7, x'00')")
        else:
            old.execute("INSERT INTO installation (one, id, page_key) VALUES (1, 'i', x'00')")
            old.execute("INSERT INTO epochs VALUES (7, 0, 0, 0, NULL)")
        clear = b"" if schema == 1 else b"\x00"
        log = "a\x00é" if schema == 1 else b"\x00" + "a\x00é".encode()
        old.execute(_CALL, ("c1", "FAILED", 5, clear + b"\x00\xff", log))
        old.execute(_CALL, ("c2", "DISPATCHED", 6, None, "" if schema == 1 else b""))
        old.execute(_CALL, ("c3", "REFUSED", 9, None, "" if schema == 1 else b""))
        if schema >= 3:
            old.execute("INSERT INTO grant_uses VALUES ('acme', 'prod', 'g', 'desk', 'm', 2, 6)")
        for version in ("1.0.0", "1.1.0"):
            old.execute(_VERSION, (version,))
        old.execute("INSERT INTO aliases VALUES ('acme', 'shop', 'stable', '1.0.0')")
        if schema >= 7:
            old.execute("INSERT INTO alias_steps SELECT tenant, bundle, alias, 1, version FROM aliases")
        old.execute(_LEASE, (0, "l1", "a1", "v-l1", None))
        old.execute(_LEASE, (1, "l2", "a2", "v-l2", 8))


@pytest.fixture(params=EARLIER, ids="schema_{}".format)
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of each earlier release."""
    path = tmp_path / "state.db"
    make_old(path, request.param)
    return path


async def test_keeps_the_calls_and_the_installation(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    found = [await store.get_call("acme", call_id) for call_id in ("c1", "c2")]
    await store.close()
    assert store.epoch == Epoch("i", 8)
    assert [(call.result, call.tool_log) for call in found if call] == [
        (b"\x00\xff", "a\x00é"),
        (None, ""),
    ]


async def test_keeps_the_leases_as_those_of_the_engine_that_there_was(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    (live,) = await store.live_leases()
    await store.lease_ended("l1", EPOCH)
    (event,) = await read_events(store, "lease.ended")
    await store.close()
    assert (live.lease, live.call.call_id, live.call.marks) == (OLD_LEASE, "c1", ())
    assert (live.lease.engine, live.lease.role, live.lease.expires) == ("database", "", None)
    assert (event["tenant"], event["call_id"], event["details"]["lease"]) == ("acme", "c1", "l1")


async def test_counts_what_grants_allowed_before(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    uses = await store.grant_uses("acme")
    await store.close()
    last = EPOCH + timedelta(microseconds=6)
    assert list(uses) == [GrantUse("g", "prod", "desk", "m", 2, last)]


async def test_ends_a_call_that_the_earlier_release_left_with_new_leases(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    (left,) = await store.unfinished()
    lease = make_lease("l3", engine="pki", role="mtls", expires=EPOCH)
    await store.adopt(replace(left, state=CallState.FAILED, leases=(lease,)), event_of(left))
    found = await store.get_call("acme", "c2")
    await store.close()
    assert found is not None
    assert (found.state, found.leases) == (CallState.FAILED, (lease,))


async def test_takes_an_artefact(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    given = make_artefact()
    await succeed(store, make_call("c9"), given)
    found = await store.get_call("acme", "c9")
    assert found is not None
    assert found.artefacts == (replace(given, content=None),)
    assert await store.read_artefact("acme", "c9", 0, 0) == given.content
    await store.close()


async def test_takes_a_brake(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    await store.set_brake(make_brake(), make_event())
    assert list(await store.brakes()) == [make_brake()]
    await store.close()
    assert isinstance(await verify(read_audit(old_file), {"k1": AUDIT_KEY}), Verified)


async def test_shows_the_newest_file_before_this_one_without_changing_it(tmp_path: Path) -> None:
    make_old(tmp_path / "state.db", EARLIER[-1])
    view = look_into(tmp_path / "state.db")
    assert (view.schema, view.owed_leases, view.unfinished_calls) == ((EARLIER[-1], len(STEPS)), 1, 1)


async def test_restores_a_backup_of_the_release_before(tmp_path: Path) -> None:
    path, backup, place = tmp_path / "state.db", tmp_path / "backup.db", tmp_path / "new.db"
    make_old(path, EARLIER[-1])
    await backup_store(path, backup)
    restored = await restore_store(backup, place, OPTIONS)
    store = await open_store(place, OPTIONS)
    (live,) = await store.live_leases()
    await store.close()
    assert (restored.in_doubt, live.lease) == (1, OLD_LEASE)


async def test_takes_an_alias_back_to_where_the_earlier_release_left_it(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    assert list(await store.alias_steps("acme", "shop", "stable")) == ["1.0.0"]
    await store.move_alias("acme", "shop", "stable", "1.1.0", make_event())
    back = AliasStep("acme", "shop", "stable", left="1.1.0", reached="1.0.0")
    assert (await store.step_back(back, make_event())).version == "1.0.0"
    await store.close()


async def test_reads_what_earlier_calls_had_not(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    found = await store.get_call("acme", "c1")
    await store.close()
    assert found is not None
    assert (found.removed, found.workflow, found.artefacts) == ((), "", ())
    assert (found.connections, found.connections_dropped) == ((), 0)


async def test_takes_the_connections_of_a_call_that_the_earlier_release_left(old_file: Path) -> None:
    store = await open_store(old_file, OPTIONS)
    (left,) = await store.unfinished()
    lost = lost_record(EPOCH, "the broker ended")
    await store.adopt(replace(left, state=CallState.FAILED, connections=(lost,)), event_of(left))
    found = await store.get_call("acme", "c2")
    await store.close()
    assert found is not None
    assert found.connections == (lost,)
