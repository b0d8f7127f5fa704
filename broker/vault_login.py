"""How the broker logs in at Vault, and how its session behaves, as toolcrib.toml says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.settings import (
    AppRoleLogin,
    CertificateLogin,
    SettingsInvalid,
    TokenLogin,
    VaultServer,
)
from credentials.engines import DEFAULT_MOUNTS
from credentials.logins import AppRole, ClientCertificate, Jwt, Login, LoginInvalid, StaticToken
from credentials.tuning import SessionTuning


def make_login(vault: VaultServer) -> Login:
    """Make the login; what it reads is read at each login, and once now.

    Raises:
        SettingsInvalid: A file cannot be read, or is empty.
    """
    made = _make(vault)
    try:
        made.examine()
    except LoginInvalid as error:
        raise SettingsInvalid(f"vault.login: {error}") from error
    return made


def make_tuning(vault: VaultServer, **more: Any) -> SessionTuning:
    """Say how a session behaves; `more` is what is not the operator's to say."""
    login = vault.login
    return SessionTuning(
        ca_file=vault.ca_file,
        certificate=(login.certificate, login.private_key) if isinstance(login, CertificateLogin) else None,
        timeout_seconds=vault.timeout_seconds,
        renew_seconds=vault.renew_seconds,
        max_requests=vault.max_requests,
        mounts=find_mounts(vault),
        **more,
    )


def find_mounts(vault: VaultServer) -> Mapping[str, str]:
    """Say where each secrets engine is, by plugin."""
    return dict(DEFAULT_MOUNTS) | dict(vault.mounts)


def _make(vault: VaultServer) -> Login:
    login = vault.login
    if isinstance(login, AppRoleLogin):
        return AppRole(login.role_id_file, login.secret_id_file, login.mount)
    if isinstance(login, CertificateLogin):
        return ClientCertificate(login.certificate, login.private_key, login.role, login.mount)
    if isinstance(login, TokenLogin):
        return StaticToken(login.token_file)
    # Vault's Kubernetes method takes the same request as its JWT method.
    return Jwt(login.role, login.token_file, login.mount)
