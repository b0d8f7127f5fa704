"""An OpenBao and a PostgreSQL whose passwords may be changed, and the administrator's way in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.rotation.secret_id import BrokerLogin
from credentials.transport import HvacTransport, Peer
from credentials.vault_api import VaultApi
from tests.parts import without

TARGET, ROLE = "orders-db", "notes-read"


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevPostgres]:
    """A server whose `VAULT_ROLE` gets other passwords."""
    if without("postgres"):
        pytest.skip("without postgres, as TOOLCRIB_WITHOUT says")
    with DevPostgres(tmp_path_factory.mktemp("rotated")) as server:
        server.run_script("CREATE TABLE notes (note text); INSERT INTO notes VALUES ('hello');")
        yield server


@pytest.fixture(scope="package")
def vault(tmp_path_factory: pytest.TempPathFactory, postgres: DevPostgres) -> Iterator[DevVault]:
    """An OpenBao that knows it."""
    if without("openbao"):
        pytest.skip("without openbao, as TOOLCRIB_WITHOUT says")
    with DevVault(tmp_path_factory.mktemp("rotating")) as server:
        server.connect_database(TARGET, postgres)
        server.install_role(ROLE, TARGET, ['GRANT SELECT ON notes TO "{{name}}"'])
        yield server


@pytest.fixture
async def api(vault: DevVault) -> AsyncIterator[VaultApi]:
    """Requests by hvac, as the command line makes them."""
    transport = HvacTransport(Peer(vault.address))
    yield VaultApi(transport)
    await transport.close()


@pytest.fixture
def login(vault: DevVault, tmp_path: Path) -> BrokerLogin:
    """The broker's login, its secret id in a file."""
    made = vault.write("auth/approle/role/toolcrib-broker/secret-id")["data"]
    file = tmp_path / "secret_id"
    file.touch(mode=0o600)
    file.write_text(made["secret_id"])
    return BrokerLogin(vault.role_id, file)
