"""What the operator decides: toolcrib.toml as one frozen object, read once.

This is the only module that reads the environment. Unknown keys are refused with the nearest valid one;
a relative path is relative to the file that names it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from broker.identity_settings import Identity, Issuer
from broker.target_settings import Target

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class SettingsInvalid(Exception):
    """The configuration cannot be used; the message names each key and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """Where the broker listens, and how it proves itself and its callers."""

    listen: str = Field("127.0.0.1:7443", description="host:port of the gRPC door")
    certificate: Path
    private_key: Path
    client_ca: Path = Field(description="PEM of the CAs whose client certificates are accepted")
    trust_domain: str = Field(pattern=r"^[a-z0-9.-]{1,253}$")
    metrics_listen: str = Field("", description="host:port of the Prometheus page; empty: none")
    drain_seconds: float = Field(20.0, ge=0, le=600)
    max_message_bytes: int = Field(4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    max_calls: int = Field(256, ge=1, le=10_000, description="calls in flight over all tenants")
    platform_operators: tuple[str, ...] = Field(
        (), description="identities of operators who may act on every tenant; empty: nobody"
    )

    @model_validator(mode="after")
    def _check_platform_operators(self) -> Server:
        """See that each is what a certificate can carry: a typo would be found in an emergency only."""
        shape = re.compile(rf"spiffe://{re.escape(self.trust_domain)}/tenant/[^/]+/operator/[^/]+")
        for named in self.platform_operators:
            if not shape.fullmatch(named):
                raise ValueError(
                    f'platform_operators: "{named}" is no operator of this broker; expected '
                    f"spiffe://{self.trust_domain}/tenant/TENANT/operator/NAME"
                )
        return self


class State(_Section):
    """Where calls, claims, grants and the audit live, and the keys that protect them."""

    path: Path
    key_file: Path = Field(description="32 random bytes or more; digests and the audit chain hang on it")
    retention_seconds: int = Field(7 * 86_400, ge=86_400, description="how long a key replays")
    epoch_seconds: float = Field(
        15.0, ge=0.2, le=600, description="how long a killed broker keeps the next one out of its state"
    )


Mount = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+(/[a-zA-Z0-9_-]+)*$")]
"""Where something stands in Vault, without the slash at the end."""


class _Login(_Section):
    """How the broker proves to Vault who it is. `mount` is where the method is, below auth/."""

    @property
    def files(self) -> Mapping[str, Path]:
        """What is read at each login, by its key."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in found.items() if isinstance(value, Path)}


class AppRoleLogin(_Login):
    """The broker shows a role id and a secret id."""

    method: Literal["approle"]
    role_id_file: Path
    secret_id_file: Path
    role: str = Field("toolcrib-broker", description="its name, for `toolcrib vault bootstrap`")
    mount: Mount = "approle"


class JwtLogin(_Login):
    """The broker shows a token that an identity provider signed."""

    method: Literal["jwt"]
    role: str = Field(min_length=1)
    token_file: Path
    mount: Mount = "jwt"


class KubernetesLogin(_Login):
    """The broker shows the token of its pod's service account."""

    method: Literal["kubernetes"]
    role: str = Field(min_length=1)
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: Mount = "kubernetes"


class CertificateLogin(_Login):
    """The broker shows a client certificate."""

    method: Literal["cert"]
    role: str = Field(min_length=1)
    certificate: Path
    private_key: Path
    mount: Mount = "cert"


class TokenLogin(_Login):
    """The broker makes its session with a token that is there. For development: it may be root's."""

    method: Literal["token"]
    token_file: Path


LoginSection = AppRoleLogin | JwtLogin | KubernetesLogin | CertificateLogin | TokenLogin
_LOGINS: Mapping[str, type[LoginSection]] = {
    "approle": AppRoleLogin,
    "jwt": JwtLogin,
    "kubernetes": KubernetesLogin,
    "cert": CertificateLogin,
    "token": TokenLogin,
}
Plugin = Literal["database", "kv", "pki", "ssh", "transit", "ldap"]


class VaultServer(_Section):
    """The Vault whose short-lived credentials the tools get."""

    address: str = Field(pattern=r"^https?://", description="https://…; http:// for loopback only")
    login: LoginSection = Field(discriminator="method")
    ca_file: Path | None = None
    timeout_seconds: float = Field(5.0, gt=0, le=60)
    renew_seconds: float = Field(
        5.0, gt=0, le=60, description="how often the session is renewed; a third of its period at most"
    )
    max_requests: int = Field(16, ge=1, le=256, description="mints at once, and ends at once")
    mounts: Mapping[Plugin, Mount] = Field(
        default_factory=dict, description="where the secrets engines are, if not where they usually are"
    )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if address.startswith("http://") and urlsplit(address).hostname not in LOOPBACK:
            raise ValueError(
                "every token and secret would cross the network in clear; use https:// "
                "(http:// is for loopback only)"
            )
        return address


class Engine(_Section):
    """The Docker Engine that runs the sandboxes."""

    url: str = Field("unix:///var/run/docker.sock", pattern=r"^unix://")


DriverName = Literal["docker-runc", "docker-runsc", "bubblewrap"]
IsolationClass = Literal["container", "strong"]


class Pool(_Section):
    """How many sandboxes wait, loaded, for calls that have not come yet."""

    least_idle: int = Field(
        0, ge=0, le=1_000, description="of each tool version that is called at all, if there is room"
    )
    max_idle: int = Field(32, ge=0, le=1_000, description="waiting sandboxes in all; 0: none, all are cold")
    idle_seconds: float = Field(300.0, ge=1, le=3_600, description="the oldest that a waiting one may be")
    makers: int = Field(2, ge=1, le=64, description="sandboxes that are made at once")
    max_wait_seconds: float = Field(
        1.0, ge=0.05, le=60, description="a call that would wait longer until its own is begun is refused"
    )


class Sandboxes(_Section):
    """Which driver runs the sandboxes of each isolation class, and how much of the host they may take."""

    classes: Mapping[IsolationClass, DriverName] = Field({"container": "docker-runc"}, min_length=1)
    image_dir: Path | None = Field(
        None, description="images of drivers without an engine; bubblewrap needs it"
    )
    allow_weak: bool = Field(False, description="let `serve` use bubblewrap, which is for development")
    memory_mib: int = Field(0, ge=0, description="of all sandboxes together; 0: half of the host's")
    pool: Pool = Pool()


class Tenant(_Section):
    """What one tenant may ask of the broker at a time, and what the operator lets its tools use at all.

    Tool authors choose the names in a manifest; where tenants do not trust each other, these patterns keep
    one from naming what is another's.
    """

    max_request_bytes: int = Field(256 * 1024, ge=1)
    max_concurrent_calls: int = Field(32, ge=1)
    targets: tuple[str, ...] = Field(
        (), description="patterns of targets that its tools may reach; empty: none"
    )
    vault_roles: tuple[str, ...] = Field(
        (), description="patterns of Vault roles its tools may use; empty: none"
    )


class Workflows(_Section):
    """How long workflows last, and what agents without one hold."""

    max_ttl_seconds: int = Field(
        86_400, ge=60, le=7 * 86_400, description="the most that a workflow's handle is valid"
    )
    label_ttl_seconds: int = Field(
        86_400,
        ge=3_600,
        le=7 * 86_400,
        description="how long an agent without a handle counts as holding what it got last",
    )
    max_open: int = Field(
        10_000, ge=1, le=100_000, description="workflows of one tenant that have not expired"
    )

    @model_validator(mode="after")
    def _check_times(self) -> Workflows:
        """See that waiting and dropping the handle sheds nothing that still counts under the handle."""
        if self.label_ttl_seconds < self.max_ttl_seconds:
            raise ValueError(
                "label_ttl_seconds must be at least max_ttl_seconds: an agent that drops its handle would "
                "hold less than with it"
            )
        return self


class Settings(_Section):
    """Everything in toolcrib.toml."""

    environments: tuple[Name, ...] = Field(min_length=1)
    run_dir: Path = Field(description="sockets of the running broker; emptied at start and at the end")
    development: bool = Field(False, description="set by `toolcrib dev`; `serve` refuses it")
    server: Server
    identity: Identity = Identity.model_validate({})
    state: State
    vault: VaultServer
    engine: Engine = Engine()
    sandboxes: Sandboxes = Sandboxes()
    workflows: Workflows = Workflows.model_validate({})
    targets: Mapping[Name, Target] = Field(default_factory=dict)
    tenants: Mapping[Name, Tenant] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_login(self) -> Settings:
        """See that a static token, which may be root's and does not end, stays out of production."""
        if self.vault.login.method == "token" and not self.development:
            raise ValueError('vault.login: method "token" is for development only; see docs/operating.md')
        return self

    @model_validator(mode="after")
    def _check_issuers(self) -> Settings:
        """See that tokens name tenants that there are."""
        for issuer in self.identity.issuers:
            missing = issuer.own_tenants - set(self.tenants)
            if missing:
                raise ValueError(f"identity.issuers: {issuer.issuer}: there is no [tenants.{min(missing)}]")
        return self

    @property
    def default_environment(self) -> str:
        """The environment of a call that names none: the first one."""
        return self.environments[0]


def read_settings(path: Path) -> Settings:
    """Read and check toolcrib.toml.

    Raises:
        SettingsInvalid: The file is missing, is no TOML, or a key is unknown, missing or out of range.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsInvalid(f"{path}: cannot be read ({error.strerror}); name it with --config") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{path}: is no TOML: {error}") from error
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_explain(path, item) for item in error.errors())) from error
    return _resolve(settings, path.parent)


def environment_variable(name: str) -> str:
    """Read one of the few variables that the command line takes: TOOLCRIB_PROFILE, DOCKER_HOST, ….

    Returns:
        The value, or "" when it is not set.
    """
    return os.environ.get(name, "")


def _explain(path: Path, item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{path}: {where}: {item['msg']}"
    nearest = difflib.get_close_matches(str(item["loc"][-1]), _keys_beside(item["loc"]), n=1, cutoff=0.5)
    hint = f'; did you mean "{nearest[0]}"?' if nearest else "; remove it"
    return f"{path}: {where}: no such key{hint}"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    if location[:2] == ("sandboxes", "pool") and len(location) > 2:
        return list(Pool.model_fields)
    if location[:2] == ("vault", "login"):
        return list(_LOGINS[location[2]].model_fields) if len(location) > 3 else []
    if location[:2] == ("identity", "issuers") and len(location) > 2:
        return list(Issuer.model_fields)
    sections: dict[str, type[BaseModel]] = {
        "server": Server,
        "identity": Identity,
        "state": State,
        "vault": VaultServer,
        "engine": Engine,
        "sandboxes": Sandboxes,
        "targets": Target,
        "tenants": Tenant,
        "workflows": Workflows,
    }
    model = sections.get(str(location[0]), Settings) if len(location) > 1 else Settings
    return list(model.model_fields)


def _resolve(settings: Settings, base: Path) -> Settings:
    """Make every relative path absolute, beside the file that names it."""

    def absolute(section: _Section) -> dict[str, Any]:
        return {
            name: base / value
            for name in type(section).model_fields
            if isinstance(value := getattr(section, name), Path)
        }

    changes: dict[str, Any] = absolute(settings)
    for name in ("server", "state", "vault", "sandboxes"):
        section = getattr(settings, name)
        changes[name] = section.model_copy(update=absolute(section))
    login = settings.vault.login
    login = login.model_copy(update=absolute(login))
    changes["vault"] = changes["vault"].model_copy(update={"login": login})
    changes["identity"] = settings.identity.resolve(base)
    changes["targets"] = {name: target.resolve(base) for name, target in settings.targets.items()}
    return settings.model_copy(update=changes)
