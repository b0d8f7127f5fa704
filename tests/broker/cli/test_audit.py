"""`toolcrib audit verify`: finds a break and says where, beside a running store and without one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.keys import read_key_file
from broker.store.options import StoreOptions
from broker.store.records import AuditEvent
from broker.store.sqlite import open_store


@pytest.fixture
def key_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "broker.key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(32)))
    yield path


@pytest.fixture
def state(tmp_path: Path, key_file: Path) -> Path:
    asyncio.run(_fill(tmp_path / "state.db", key_file))
    return tmp_path / "state.db"


async def _fill(path: Path, key_file: Path) -> None:
    keys = read_key_file(key_file)
    store = await open_store(path, StoreOptions(keys.audit_key, keys.audit_key_id))
    for number in range(3):
        event = AuditEvent("call.refused", "shop", "dev", datetime.now(UTC), f"c{number}")
        await store.append_audit(event)
    await store.close()


def run_verify(state: Path, key_file: Path, *more: str) -> Result:
    arguments = ["audit", "verify", "--state-db", str(state), "--key-file", str(key_file), *more]
    return CliRunner().invoke(main, arguments)


def change(state: Path, statement: str) -> None:
    connection = sqlite3.connect(state)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_prints_the_head_of_a_chain_that_holds(state: Path, key_file: Path):
    result = run_verify(state, key_file)
    assert result.exit_code == 0
    assert "records  3\n" in result.stdout


def test_says_where_a_record_was_changed(state: Path, key_file: Path):
    change(state, "UPDATE audit SET payload = replace(payload, 'refused', 'allowed') WHERE sequence = 2")
    result = run_verify(state, key_file)
    assert result.exit_code == 3
    assert "record 2 was changed" in result.stderr


def test_finds_a_cut_end_by_an_anchor(state: Path, key_file: Path):
    anchor = run_verify(state, key_file).stdout.split("head")[1].split()[0]
    change(state, "DELETE FROM audit WHERE sequence = 3")
    assert run_verify(state, key_file).exit_code == 0
    assert run_verify(state, key_file, "--anchor", anchor).exit_code == 3


def test_finds_a_chain_of_another_key(state: Path, key_file: Path):
    key_file.write_bytes(bytes(32))
    assert "which was not given" in run_verify(state, key_file).stderr


def test_refuses_an_anchor_that_is_none(state: Path, key_file: Path):
    assert run_verify(state, key_file, "--anchor", "seventeen").exit_code == 2


def test_refuses_to_guess_where_the_state_is():
    result = CliRunner().invoke(main, ["audit", "verify"])
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_calls_a_missing_state_unhealthy(tmp_path: Path, key_file: Path):
    assert run_verify(tmp_path / "nothing.db", key_file).exit_code == 3
