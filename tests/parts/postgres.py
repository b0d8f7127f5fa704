"""Fixtures for the real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from credentials.dev_postgres import DevPostgres
from credentials.errors import PartUnavailable
from tests.parts import REAL_PARTS, without


@pytest.fixture(scope="session")
def dev_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevPostgres]:
    """A PostgreSQL server for the whole run; its database is empty but for what tests put there."""
    if without("postgres"):
        pytest.skip("without postgres, as TOOLCRIB_WITHOUT says")
    server = DevPostgres(tmp_path_factory.mktemp("postgres"))
    try:
        server.start()
    except PartUnavailable as error:
        pytest.fail(f"no real PostgreSQL (name it in TOOLCRIB_WITHOUT to do without): {error}")
    REAL_PARTS.append(f"PostgreSQL {server.version}")
    try:
        yield server
        assert server.count_v_sessions() == 0, "a minted login still has a session"
        assert server.count_v_roles() == 0, "a minted login is left over"
    finally:
        server.stop()
