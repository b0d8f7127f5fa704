"""The secrets engines of Vault that tools can have credentials from: a module each, one table of them all."""

from __future__ import annotations

from collections.abc import Mapping

from credentials.engines.base import DEFAULT_MOUNTS, Minted, Mounts, Order, SecretsEngine, explain_unusable
from credentials.engines.database import DatabaseEngine
from credentials.engines.database_static import StaticDatabaseEngine
from credentials.engines.kv import KeyValueEngine
from credentials.engines.ldap import LdapEngine, LdapStaticEngine
from credentials.engines.oauth2 import OAuthEngine
from credentials.engines.pki import PkiEngine
from credentials.engines.ssh import SshEngine
from credentials.engines.transit import TransitEngine

__all__ = ["DEFAULT_MOUNTS", "ENGINES", "Minted", "Mounts", "Order", "SecretsEngine", "explain_unusable"]

_ALL: tuple[SecretsEngine, ...] = (
    DatabaseEngine(),
    StaticDatabaseEngine(),
    KeyValueEngine(),
    PkiEngine(),
    SshEngine(),
    TransitEngine(),
    LdapEngine(),
    LdapStaticEngine(),
    OAuthEngine(),
)
ENGINES: Mapping[str, SecretsEngine] = {engine.name: engine for engine in _ALL}
"""By the name that a manifest gives."""
