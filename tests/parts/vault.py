"""Fixtures for the real OpenBao, connected to the real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.errors import PartUnavailable
from credentials.vault import VaultSession
from tests.parts import REAL_PARTS, without

TARGET = "orders-db"


@pytest.fixture(scope="session")
def dev_vault(tmp_path_factory: pytest.TempPathFactory, dev_postgres: DevPostgres) -> Iterator[DevVault]:
    """An OpenBao for the whole run; its database engine makes logins at "orders-db"."""
    if without("openbao"):
        pytest.skip("without openbao, as TOOLCRIB_WITHOUT says")
    server = DevVault(tmp_path_factory.mktemp("vault"))
    try:
        server.start()
    except PartUnavailable as error:
        pytest.fail(f"no real OpenBao (name it in TOOLCRIB_WITHOUT to do without): {error}")
    REAL_PARTS.append(f"OpenBao {server.version}")
    try:
        server.connect_database(TARGET, dev_postgres)
        yield server
        assert server.list_leases() == [], "a lease is left over"
        assert server.count_tokens() == 0, "a call's child token is left over"
        assert server.count_sessions() == 0, "a broker's session is left over"
    finally:
        server.stop()


@pytest.fixture
async def vault_session(dev_vault: DevVault) -> AsyncIterator[VaultSession]:
    """A broker's session; what it minted is ended with the test."""
    session = VaultSession(dev_vault.address, dev_vault.login)
    await session.open()
    try:
        yield session
    finally:
        await session.close()
