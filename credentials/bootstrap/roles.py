"""Roles as a file under version control says them: `[roles.NAME]` in TOML, turned into Vault's terms.

    [roles.shop-orders-read]
    target = "orders-db"                 # engine = "database" where none is named
    grants = ['GRANT SELECT ON public.orders TO "{{name}}"']

The file names what a role may do at its target; how its credentials are made and ended is ours and cannot be
said. The list of fields is closed for each engine: what cannot be said cannot be asked for.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from credentials.bootstrap.items import Item
from credentials.engines import ENGINES, Mounts, pki, ssh
from credentials.engines.base import MAX_TTL_SECONDS
from credentials.engines.ldap import creation_ldif, deletion_ldif
from credentials.engines.oauth2.assertion import JWS_NAMES
from credentials.engines.oauth2.role import OAuthRole, key_name, secret_path
from credentials.engines.transit import ALGORITHMS
from credentials.refusals import ROLE_SHAPE
from credentials.statements import REVOCATION, ROTATION, creation_statements

TTL_SECONDS = 900
"""How long a credential works when nobody ends it."""
ROTATION_SECONDS = 86_400
"""How often Vault changes a static login's password that no call has changed meanwhile."""


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Principal = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]*=[^\x00-\x1f\x7f{}]{1,500}$")]
"""A distinguished name; no braces, because Vault takes what holds it for a template."""
Domain = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
"""It becomes a certificate's common name: `pki.MAX_NAME_LENGTH`."""


class RolesInvalid(ValueError):
    """A roles file cannot be used; the message names file, role and field."""


class _Role(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str

    def write(self, mount: str, role: str) -> Item | None:
        """Return what Vault should hold for it; None where it is not ours to write."""
        raise NotImplementedError(role)

    def list_items(self, mounts: Mounts, role: str) -> list[Item]:
        """Return all that Vault should hold for it, of every mount that its engine needs."""
        item = self.write(mounts[ENGINES[self.engine].plugin], role)
        return [] if item is None else [item]


class DatabaseRole(_Role):
    """Logins made for one call each."""

    engine: Literal["database"] = "database"
    target: Name
    grants: tuple[str, ...] = Field(max_length=100)
    ttl_seconds: int = Field(TTL_SECONDS, ge=60, le=MAX_TTL_SECONDS)

    @field_validator("grants")
    @classmethod
    def _check_grants(cls, grants: tuple[str, ...]) -> tuple[str, ...]:
        creation_statements(grants)
        return grants

    def write(self, mount: str, role: str) -> Item:
        """Let the role make logins with our statements."""
        values = {
            "db_name": self.target,
            "creation_statements": creation_statements(self.grants),
            "revocation_statements": [REVOCATION],
            "default_ttl": self.ttl_seconds,
            "max_ttl": self.ttl_seconds,
            "renew_statements": [],
            "rollback_statements": [],
        }
        return Item(f"database role {role}", f"{mount}/roles/{role}", values)


class StaticDatabaseRole(_Role):
    """A login that exists at the target; Vault changes its password."""

    engine: Literal["database_static"]
    target: Name
    username: Principal

    def write(self, mount: str, role: str) -> Item:
        """Let Vault take the login over. Its password is changed at once: who else knew it is out."""
        values = {
            "db_name": self.target,
            "username": self.username,
            "rotation_statements": [ROTATION],
            "rotation_period": ROTATION_SECONDS,
        }
        return Item(f"database_static role {role}", f"{mount}/static-roles/{role}", values)


class SecretRole(_Role):
    """A secret that somebody puts into the key-value engine: there is nothing of ours to write."""

    engine: Literal["kv"]

    def write(self, mount: str, role: str) -> None:
        """Nothing: its values are the operator's."""


class CertificateRole(_Role):
    """Client certificates with one name."""

    engine: Literal["pki"]
    name: Domain
    ttl_seconds: int = Field(TTL_SECONDS, ge=60, le=MAX_TTL_SECONDS)

    def write(self, mount: str, role: str) -> Item:
        """Let the role give client certificates, of which Vault keeps a lease."""
        fields = pki.role_fields(self.name, self.ttl_seconds)
        return Item(f"pki role {role}", f"{mount}/roles/{role}", fields, is_whole=True)


class SshRole(_Role):
    """Certificates for one user name, with which one command runs and nothing else."""

    engine: Literal["ssh"]
    principal: Principal
    force_command: Text
    ttl_seconds: int = Field(TTL_SECONDS, ge=60, le=MAX_TTL_SECONDS)

    def write(self, mount: str, role: str) -> Item:
        """Let the role sign keys of users, for this principal and this command."""
        fields = ssh.role_fields(self.principal, self.force_command, self.ttl_seconds)
        kept = {"default_critical_options": (ssh.SOURCE_ADDRESS,)}
        return Item(f"ssh role {role}", f"{mount}/roles/{role}", fields, is_whole=True, kept=kept)


class SigningKey(_Role):
    """A key that signs in Vault and never leaves it."""

    engine: Literal["transit"]
    type: Annotated[str, Field(pattern=f"^({'|'.join(ALGORITHMS)})$")]

    def write(self, mount: str, role: str) -> Item:
        """Make the key."""
        return key_item(f"transit key {role}", f"{mount}/keys/{role}", self.type)


class DirectoryRole(_Role):
    """Users of a directory, made for one call each below one entry, and members of groups."""

    engine: Literal["ldap"]
    parent: EntryName
    groups: tuple[EntryName, ...] = Field((), max_length=20)
    ttl_seconds: int = Field(TTL_SECONDS, ge=60, le=MAX_TTL_SECONDS)

    def write(self, mount: str, role: str) -> Item:
        """Let the role make users with our LDIF."""
        deletion = deletion_ldif(self.parent, self.groups)
        values = {
            "creation_ldif": creation_ldif(self.parent, self.groups),
            "deletion_ldif": deletion,
            "rollback_ldif": deletion,
            "default_ttl": self.ttl_seconds,
            "max_ttl": self.ttl_seconds,
        }
        return Item(f"ldap role {role}", f"{mount}/role/{role}", values)


class StaticDirectoryRole(_Role):
    """A user of a directory that exists; Vault changes its password."""

    engine: Literal["ldap_static"]
    dn: EntryName
    username: Principal

    def write(self, mount: str, role: str) -> Item:
        """Let Vault take the user over. Its password is changed at once: who else knew it is out."""
        values = {"dn": self.dn, "username": self.username, "rotation_period": ROTATION_SECONDS}
        return Item(f"ldap_static role {role}", f"{mount}/static-role/{role}", values)


class OAuthClientRole(_Role, OAuthRole):
    """Access tokens for one client at one authorization server; its secret is the operator's to put there.

    Attributes:
        key: The type of the key that signs assertions, where the role needs one.
    """

    engine: Literal["oauth2"]
    key: Annotated[str, Field(pattern=f"^({'|'.join(JWS_NAMES)})$")] = "ecdsa-p256"

    def list_items(self, mounts: Mounts, role: str) -> list[Item]:
        """Say what the role is, and make its key."""
        path = f"{mounts['kv']}/metadata/{secret_path(role)}"
        said = Item(f"oauth2 role {role}", path, {"custom_metadata": self.to_metadata()})
        if not self.needs_key:
            return [said]
        key_path = f"{mounts['transit']}/keys/{key_name(role)}"
        return [said, key_item(f"key of oauth2 role {role}", key_path, self.key)]


RoleFields = (
    DatabaseRole
    | StaticDatabaseRole
    | SecretRole
    | CertificateRole
    | SshRole
    | SigningKey
    | DirectoryRole
    | StaticDirectoryRole
    | OAuthClientRole
)
KINDS: Mapping[str, type[RoleFields]] = {
    "database": DatabaseRole,
    "database_static": StaticDatabaseRole,
    "kv": SecretRole,
    "pki": CertificateRole,
    "ssh": SshRole,
    "transit": SigningKey,
    "ldap": DirectoryRole,
    "ldap_static": StaticDirectoryRole,
    "oauth2": OAuthClientRole,
}


@dataclass(frozen=True, slots=True)
class RoleDefinition:
    """A role of a file.

    Attributes:
        source: The file, for messages.
    """

    role: str
    fields: RoleFields
    source: str = ""

    @property
    def engine(self) -> str:
        """The secrets engine."""
        return self.fields.engine

    @property
    def target(self) -> str:
        """Where its credentials are good; "" where the file does not say."""
        return getattr(self.fields, "target", "")

    def list_items(self, mounts: Mounts) -> list[Item]:
        """Return what Vault should hold for it; nothing where it is not ours to write."""
        return self.fields.list_items(mounts, self.role)


def key_item(subject: str, path: str, kind: str) -> Item:
    """Return a transit key that nobody can take out. It is never made anew: what it sealed would be lost."""
    expected = {"exportable": False, "allow_plaintext_backup": False, "deletion_allowed": False}
    return Item(subject, path, {"type": kind}, expected, is_fixed=True)


def read_roles(files: Sequence[Path]) -> list[RoleDefinition]:
    """Read roles files.

    Raises:
        RolesInvalid: A file cannot be read, a field is unknown, missing or wrong, or two files define one
            role differently.
    """
    found: dict[tuple[str, str], RoleDefinition] = {}
    for file in files:
        for definition in _read_file(file):
            key = (definition.engine, definition.role)
            if key in found and found[key].fields != definition.fields:
                text = f"{file}: roles.{definition.role}: {found[key].source} defines it differently"
                raise RolesInvalid(text)
            found[key] = definition
    return list(found.values())


def define_role(role: str, fields: Mapping[str, Any], source: str = "") -> RoleDefinition:
    """Check the fields of one role.

    Raises:
        RolesInvalid: With every field that is wrong.
    """
    where = f"{source}: roles.{role}" if source else f"roles.{role}"
    if not ROLE_SHAPE.fullmatch(role):
        raise RolesInvalid(f'{where}: is no role name; use a-z, 0-9 and "-"')
    if not isinstance(fields, dict):
        raise RolesInvalid(f"{where}: must be a table of fields")
    engine = fields.get("engine", "database")
    kind = KINDS.get(engine) if isinstance(engine, str) else None
    if kind is None:
        raise RolesInvalid(f"{where}.engine: must be one of {', '.join(KINDS)}")
    try:
        return RoleDefinition(role, kind.model_validate(fields), source)
    except ValidationError as error:
        problems = "; ".join(_explain(item, kind) for item in error.errors())
        raise RolesInvalid(f"{where}: {problems}") from error


def _read_file(file: Path) -> list[RoleDefinition]:
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise RolesInvalid(f"{file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RolesInvalid(f"{file}: is no TOML: {error}") from error
    others = sorted(set(document) - {"roles"})
    if others:
        raise RolesInvalid(f"{file}: {others[0]}: is not known here; a role is a table [roles.NAME]")
    roles = document.get("roles")
    if not isinstance(roles, dict) or not roles:
        raise RolesInvalid(f"{file}: defines no role; a role is a table [roles.NAME]")
    return [define_role(role, fields, str(file)) for role, fields in roles.items()]


def _explain(error: Any, kind: type[RoleFields]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, kind.model_fields, n=1, cutoff=0.5)
        known = f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
        return f"{where}: is no field of this engine's roles; {known}"
    if error["type"] == "missing":
        return f"{where}: is required"
    return f"{where}: {str(error['msg']).removeprefix('Value error, ')}"
