"""Fixtures of the credentials' tests: roles to mint from, and a Vault that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.vault import CallTag, CredentialWanted, Lease, SessionTuning, VaultSession
from tests.parts.vault import TARGET

READ = "notes-read"
WRITE = "notes-write"
BROKEN = "notes-broken"
TAG = CallTag("call-1", "acme", "staging", "5e3c")
GRANTS = {
    READ: ['GRANT SELECT ON notes TO "{{name}}"'],
    WRITE: ['GRANT SELECT, INSERT ON notes TO "{{name}}"'],
    BROKEN: ['GRANT SELECT ON no_such_table TO "{{name}}"'],
}


def wanted(role: str = READ) -> list[CredentialWanted]:
    """Return what a manifest with one credential of this role wants."""
    return [CredentialWanted("notes", "database", role)]


@pytest.fixture(scope="session")
def notes(dev_postgres: DevPostgres) -> DevPostgres:
    """The server, with a table of notes in it."""
    dev_postgres.run_script("CREATE TABLE notes (note text); INSERT INTO notes VALUES ('hello');")
    return dev_postgres


@pytest.fixture(scope="session")
def vault(dev_vault: DevVault, notes: DevPostgres) -> DevVault:
    """The shared Vault, with roles for the notes."""
    for role, grants in GRANTS.items():
        dev_vault.install_role(role, TARGET, grants)
    return dev_vault


@pytest.fixture
def own_vault(tmp_path: Path, vault: DevVault, notes: DevPostgres) -> Iterator[DevVault]:
    """A Vault of the test's own, to seal, stall or stop; its sessions live 3 s without a heartbeat."""
    with DevVault(tmp_path, session_period_seconds=3) as server:
        server.connect_database(TARGET, notes)
        for role, grants in GRANTS.items():
            server.install_role(role, TARGET, grants)
        yield server


@pytest.fixture
async def session(vault: DevVault, vault_session: VaultSession) -> VaultSession:
    """A session at the shared Vault, where the roles for the notes are."""
    return vault_session


@pytest.fixture
async def own_session(own_vault: DevVault) -> AsyncIterator[VaultSession]:
    """A session at the test's own Vault, with short times."""
    tuning = SessionTuning(timeout_seconds=1.0, renew_seconds=0.3)
    opened = VaultSession(own_vault.address, own_vault.login, tuning)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def log_in(notes: DevPostgres) -> AsyncIterator[Callable[[Lease], Any]]:
    """Connects with a lease, to the database of the notes or to another."""
    opened: list[asyncpg.Connection] = []

    async def connect(lease: Lease, **changes: Any) -> asyncpg.Connection:
        arguments = notes.login(lease.username, lease.secrets[0]) | changes
        opened.append(await asyncpg.connect(timeout=5, **arguments))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.terminate()
