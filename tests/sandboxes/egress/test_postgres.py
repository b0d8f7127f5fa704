"""A real PostgreSQL behind the relay, asked by a real client that is given the folder as its host."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from credentials.dev_postgres import DevPostgres
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import Egress
from tests.sandboxes.egress.conftest import UID, open_way_out, running

pytestmark = pytest.mark.postgres


async def log_in(postgres: DevPostgres, egress: Egress) -> asyncpg.Connection:
    """Log in with no port and no path: only the folder that the handler is told."""
    login = postgres.login() | {"host": str(egress.socket_dir / "orders-db")}
    del login["port"]
    return await asyncpg.connect(**login)


@pytest.fixture
def target(dev_postgres: DevPostgres) -> TargetAddress:
    return TargetAddress("orders-db", "postgresql", dev_postgres.host, dev_postgres.port)


async def test_serves_a_client_that_knows_only_the_folder(
    dev_postgres: DevPostgres, target: TargetAddress, run_dir: Path
) -> None:
    async with running(run_dir, target) as process:
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            session = await log_in(dev_postgres, egress)
            assert await session.fetchval("SELECT sum(n) FROM generate_series(1, 100000) n") == 5_000_050_000
            await session.close()
        (record,) = egress.connections
        assert record.bytes_up > 0 and record.bytes_down > 0


async def test_ends_an_open_transaction_with_the_call(
    dev_postgres: DevPostgres, target: TargetAddress, run_dir: Path
) -> None:
    dev_postgres.run_script("CREATE TABLE egress_trial (n int)")
    async with running(run_dir, target) as process:
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            session = await log_in(dev_postgres, egress)
            await session.execute("BEGIN; INSERT INTO egress_trial VALUES (1)")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await session.execute("COMMIT")
        session.terminate()
    assert dev_postgres.query("SELECT count(*) FROM egress_trial") == [["0"]]
    dev_postgres.run_script("DROP TABLE egress_trial")
