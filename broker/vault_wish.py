"""What Vault has to hold for this installation: by its settings, registered tools, and named bundles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.settings import Settings, TokenLogin
from broker.vault_login import find_mounts, make_login, make_tuning
from credentials.bootstrap.blueprint import LoginRole, Role, Wish
from credentials.bootstrap.roles import RoleDefinition
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.transport import Peer
from credentials.vault import VaultSession
from tools.errors import BundleInvalid
from tools.manifest import Manifest, read_manifest


@dataclass(frozen=True, slots=True)
class Need:
    """What one version of a bundle names.

    Attributes:
        tenant: Whose it is; "" for a folder that is not registered.
        roles: Engine and role of each credential.
        targets: Names of the targets.
    """

    tenant: str
    bundle: str
    roles: tuple[Role, ...]
    targets: tuple[str, ...]


def read_needs(manifests: Iterable[tuple[str, str]]) -> list[Need]:
    """Read what registered versions need; a manifest that today's rules refuse needs nothing.

    Args:
        manifests: Tenant and text of tool.yaml.
    """
    needs = []
    for tenant, text in manifests:
        try:
            needs.append(_need(tenant, read_manifest(text)))
        except BundleInvalid:
            continue
    return needs


def read_folder(folder: Path) -> Need:
    """Read what the bundle in a folder needs.

    Raises:
        OSError: It has no tool.yaml that can be read.
        BundleInvalid: Its tool.yaml is not right.
    """
    return _need("", read_manifest((folder / "tool.yaml").read_text()))


def make_wish(
    settings: Settings | None,
    needs: Iterable[Need],
    definitions: Sequence[RoleDefinition] = (),
    cidrs: Sequence[str] = (),
) -> Wish:
    """Say what Vault has to hold; without settings, for an installation with the usual ones."""
    return Wish(
        roles=frozenset(role for need in needs for role in need.roles),
        definitions=tuple(definitions),
        tenants=tuple(sorted(settings.tenants)) if settings else (),
        login=_login_role(settings, tuple(cidrs)),
        mounts=find_mounts(settings.vault) if settings else DEFAULT_MOUNTS,
    )


def vault_peer(settings: Settings) -> Peer:
    """Say which Vault it is, for an administrator's requests."""
    vault = settings.vault
    return Peer(vault.address, vault.ca_file, timeout_seconds=vault.timeout_seconds)


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[VaultSession]:
    """Log in as the broker does, beside a broker that may be running; the session is ended again.

    Raises:
        SettingsInvalid: A file that the login needs cannot be read.
        CredentialsUnavailable: Vault does not answer, or refuses the login.
    """
    vault = settings.vault
    session = VaultSession(vault.address, make_login(vault), make_tuning(vault))
    try:
        await session.open()
        yield session
    finally:
        await session.close()


def _login_role(settings: Settings | None, cidrs: tuple[str, ...]) -> LoginRole:
    if settings is None:
        return LoginRole(cidrs=cidrs)
    login = settings.vault.login
    if isinstance(login, TokenLogin):
        return LoginRole(method=login.method, mount="", role="", cidrs=cidrs)
    return LoginRole(method=login.method, mount=login.mount, role=login.role, cidrs=cidrs)


def _need(tenant: str, manifest: Manifest) -> Need:
    wanted = manifest.credentials.values()
    roles = sorted({(each.engine, each.role) for each in wanted if each.engine in ENGINES})
    return Need(tenant, manifest.bundle, tuple(roles), tuple(sorted(manifest.targets)))
