"""Passwords and secrets are rotated from the command line under 20 calls a second: none of them fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.dev_vault import DevVault
from tests.e2e.caller import Reply
from tests.e2e.rehearsal import AGENT, Play, Rehearsal, rehearse
from tests.e2e.stack import SHOP
from tests.parts import without

LOOKUP, ORDER = "shop.v1.Orders/LookupOrder", {"order_id": "A-1042"}
TARGET = "orders-db"
PER_SECOND, SECONDS = 20, 6.0
GRANTS = f"""
@id("read") @targets("{TARGET}")
permit (
    principal == Agent::"{AGENT}",
    action in [Action::"{LOOKUP}"],
    resource == Environment::"dev"
);
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory):
    """A database of this module's own: nobody else's Vault knows its password after a rotation."""
    if without("postgres") or without("openbao"):
        pytest.skip("without postgres or openbao, as TOOLCRIB_WITHOUT says")
    with DevPostgres(tmp_path_factory.mktemp("shop"), "shop") as server:
        server.run_script((SHOP / "dev" / "schema.sql").read_text())
        seed = [sys.executable, "-P", str(SHOP / "dev" / "seed.py")]
        server.run_script(subprocess.run(seed, check=True, capture_output=True, text=True).stdout)
        yield server


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory, postgres: DevPostgres):
    with DevVault(tmp_path_factory.mktemp("vault")) as server:
        server.connect_database(TARGET, postgres)
        server.install_roles(SHOP / "dev" / "roles.toml")
        yield server


@pytest.fixture
async def rehearsal(vault: DevVault, postgres: DevPostgres) -> AsyncIterator[Rehearsal]:
    target = (
        f'[targets.{TARGET}]\nkind = "postgresql"\nhost = "{postgres.host}"\nport = {postgres.port}\n'
        'settings = { database = "shop" }'
    )
    async with rehearse(vault, Play(SHOP, target, GRANTS)) as running:
        assert (await running.call(LOOKUP, ORDER)).code == "OK"
        yield running


def rotate(rehearsal: Rehearsal, *words: str, stdin: str = "") -> Result:
    """Run the command as the administrator does."""
    options = ["--config", str(rehearsal.config), "--token-file", str(rehearsal.folder / "token")]
    return CliRunner().invoke(main, ["credentials", "rotate", *words, *options], input=stdin)


async def rotate_under_load(rehearsal: Rehearsal, times: int, *words: str) -> Sequence[Reply]:
    """Rotate again and again while calls go on; returns the replies to the calls."""
    load = asyncio.create_task(rehearsal.press(LOOKUP, ORDER, per_second=PER_SECOND, seconds=SECONDS))
    for _ in range(times):
        await asyncio.sleep(SECONDS / (times + 1))
        done = await asyncio.to_thread(rotate, rehearsal, *words, "--yes")
        assert done.exit_code == 0, done.output
    return await load


def failed(replies: Sequence[Reply]) -> list[str]:
    return [f"{reply.reason}: {reply.message}" for reply in replies if reply.code != "OK"]


async def test_fails_no_call_while_the_databases_password_is_rotated(rehearsal, vault, postgres) -> None:
    replies = await rotate_under_load(rehearsal, 12, "database", TARGET)
    assert (len(replies), failed(replies)) == (PER_SECOND * SECONDS, [])
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**postgres.login(VAULT_ROLE, postgres.vault_password))


async def test_fails_no_call_while_the_secret_id_is_rotated(rehearsal, vault) -> None:
    before = (rehearsal.folder / "secret_id").read_text()
    replies = await rotate_under_load(rehearsal, 3, "secret-id")
    assert (len(replies), failed(replies)) == (PER_SECOND * SECONDS, [])
    assert (rehearsal.folder / "secret_id").read_text() != before


async def test_logs_in_with_the_new_secret_id_when_the_session_ends(rehearsal, vault) -> None:
    done = await asyncio.to_thread(rotate, rehearsal, "secret-id", "--yes")
    assert done.exit_code == 0, done.output
    for token in vault.list_tokens():
        vault.write("auth/token/revoke-accessor", accessor=token["accessor"])
    async with asyncio.timeout(30):
        while (await rehearsal.call(LOOKUP, ORDER)).code != "OK":
            await asyncio.sleep(0.2)
