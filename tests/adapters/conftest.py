"""One broker for all adapters; each test begins with a shop that answers and a client of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.adapters.contract import Desk
from tests.adapters.crib import AGENT, GRANTS, ScriptedThread, ToolScript
from tests.e2e.stack import Crib
from tests.parts import REAL_PARTS, without
from toolcrib.client import AsyncClient, Client


@pytest.fixture(scope="session")
def shop_script() -> ToolScript:
    return ToolScript()


@pytest.fixture(scope="session")
def scripted_crib(tmp_path_factory: pytest.TempPathFactory, shop_script: ToolScript) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    with ScriptedThread(tmp_path_factory.mktemp("scripted") / "state", shop_script) as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        crib.grant(GRANTS)
        yield crib


@pytest.fixture
def script(shop_script: ToolScript) -> Iterator[ToolScript]:
    shop_script.reset()
    yield shop_script
    shop_script.reset()


@pytest.fixture
def profile_folder(scripted_crib: Crib) -> Path:
    """The folder of an agent's profile.toml."""
    return scripted_crib.profile(AGENT).cert_path.parent


@pytest.fixture
async def client(profile_folder: Path) -> AsyncIterator[AsyncClient]:
    async with AsyncClient.from_profile(profile_folder) as client:
        yield client


@pytest.fixture
def sync_client(profile_folder: Path) -> Iterator[Client]:
    with Client.from_profile(profile_folder) as client:
        yield client


@pytest.fixture
def desk(client: AsyncClient, script: ToolScript, scripted_crib: Crib) -> Desk:
    return Desk(client, script, scripted_crib)
