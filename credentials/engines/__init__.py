"""The secrets engines of Vault that tools can have credentials from: a module each, one table of them all."""

from __future__ import annotations

from collections.abc import Mapping

from credentials.engines.base import DEFAULT_MOUNTS, Minted, SecretsEngine
from credentials.engines.database import DatabaseEngine
from credentials.engines.ldap import LdapEngine, LdapStaticEngine

__all__ = ["DEFAULT_MOUNTS", "ENGINES", "Minted", "SecretsEngine"]

ENGINES: Mapping[str, SecretsEngine] = {
    engine.name: engine for engine in (DatabaseEngine(), LdapEngine(), LdapStaticEngine())
}
"""By the name that a manifest gives."""
