"""[identity] of toolcrib.toml: the issuers whose tokens are taken beside client certificates.

Rules:
1. Two subjects never become one agent: a name is either written down for one claim's value (`agents`), or it
   is the value behind the issuer's own prefix (`agent_prefix`). Prefixes and names of issuers of one tenant
   do not overlap.
2. Keys come from one place that is named, over TLS or from this machine.
3. Only asymmetric algorithms: with HS256 whoever can check a token could make one.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TenantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
AgentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
ClaimName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
_GUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ENTRA_ISSUER = re.compile(rf"https?://[^/]+/{_GUID}/(v2\.0)?")
_OKTA_ISSUER = re.compile(r"https?://[^/]+/oauth2/[A-Za-z0-9]+")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_url(what: str, url: str) -> None:
    """See that nobody on the way can put keys of their own in.

    Raises:
        ValueError: It is no https URL; http is for loopback only.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or "@" in parts.netloc or "#" in url or not parts.hostname:
        raise ValueError(f"{what}: must be a URL without user, query and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError(f"{what}: use https://; http:// is for loopback only")


def is_loopback(host: str) -> bool:
    """Tell whether a host of a URL is this machine, by its very address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _preset(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say what a provider's tokens look like, where the operator does not say otherwise."""
    issuer = str(given.get("issuer", ""))
    if given.get("provider") == "okta":
        found: dict[str, Any] = {"agent_claim": "cid", "subject_claim": "sub", "algorithms": ["RS256"]}
    elif given.get("provider") == "entra":
        found = {
            "agent_claim": "azp" if issuer.endswith("/v2.0") else "appid",
            "subject_claim": "oid",
            "subject_requires": "scp",
            "algorithms": ["RS256"],
            "max_lifetime_seconds": 5_400,
        }
    else:
        return {}
    if not given.keys() & {"jwks_url", "jwks_file", "discovery"}:
        found["discovery"] = True
    return found


class Issuer(_Part):
    """One issuer of tokens, and what its tokens say."""

    issuer: str = Field(max_length=512, description="the claim `iss`, to the letter")
    audiences: tuple[str, ...] = Field(min_length=1, description="one of them must be in `aud`")
    provider: Literal["", "okta", "entra"] = Field("", description="sets what its tokens look like")
    algorithms: tuple[Algorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    discovery: bool = Field(False, description="find the keys by ISSUER/.well-known/openid-configuration")
    jwks_url: str = ""
    jwks_file: Path | None = None
    ca_file: Path | None = Field(None, description="PEM of the CAs of the issuer's server; else the system's")
    tenant: TenantName | None = Field(None, description="whose agents they are")
    tenant_claim: ClaimName | None = Field(None, description="or the claim that says it, by `tenants`")
    tenants: Mapping[str, TenantName] = Field(default_factory=dict, description="claim's value: our tenant")
    role: Literal["agent", "orchestrator"] = Field("agent", description="people come with certificates")
    agent_claim: ClaimName = Field("sub", description="which claim says the agent, unless there is `act`")
    agents: Mapping[str, AgentName] = Field(default_factory=dict, description="claim's value: agent's name")
    agent_prefix: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9.-]{0,30}-)?$", description="before a value that `agents` lacks"
    )
    subject_claim: ClaimName | None = Field(None, description="on whose behalf, where there is no `act`")
    subject_requires: ClaimName | None = Field(None, description="a claim without which there is no subject")
    subject_prefix: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._@-]{0,31})?$")
    token_type: str = Field("", max_length=32, description='what `typ` must say, for example "at+jwt"')
    leeway_seconds: int = Field(30, ge=0, le=120)
    max_lifetime_seconds: int = Field(3_600, ge=60, le=86_400, description="from `iat` to `exp`")
    refresh_seconds: float = Field(300.0, ge=1, le=86_400, description="how often the keys are read again")
    max_stale_seconds: float = Field(
        3_600.0, ge=1, le=7 * 86_400, description="how long the keys are used while they cannot be read"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        return {**_preset(given), **given} if isinstance(given, dict) else given

    @field_validator("audiences")
    @classmethod
    def _check_audiences(cls, audiences: tuple[str, ...]) -> tuple[str, ...]:
        if not all(audiences):
            raise ValueError("an audience is empty")
        return audiences

    @model_validator(mode="after")
    def _check_source(self) -> Issuer:
        _check_url("issuer", self.issuer)
        if bool(self.jwks_url) + (self.jwks_file is not None) + self.discovery != 1:
            raise ValueError("say where its keys are: one of discovery = true, jwks_url, jwks_file")
        if self.jwks_url:
            _check_url("jwks_url", self.jwks_url)
        if self.provider == "entra" and not _ENTRA_ISSUER.fullmatch(self.issuer):
            raise ValueError(
                "issuer: Entra's is https://login.microsoftonline.com/TENANT-ID/v2.0 or "
                'https://sts.windows.net/TENANT-ID/, with your directory\'s id (never "common")'
            )
        if self.provider == "okta" and not _OKTA_ISSUER.fullmatch(self.issuer):
            raise ValueError(
                "issuer: Okta's is https://DOMAIN/oauth2/AUTHORIZATION-SERVER; tokens of the org's own "
                "server are not for others to check"
            )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Issuer:
        by_claim = self.tenant_claim is not None
        if by_claim == (self.tenant is not None) or by_claim != bool(self.tenants):
            raise ValueError("say whose agents they are: tenant, or tenant_claim and tenants")
        if not self.agents and not self.agent_prefix:
            raise ValueError(
                'say which agents they are: agents = { "VALUE" = "NAME" }, or agent_prefix = "…-"; without '
                "either a token could name an agent that has a certificate"
            )
        if len(set(self.agents.values())) < len(self.agents):
            raise ValueError("agents: two values have one name; the grants could not tell them apart")
        if self.agent_prefix and any(name.startswith(self.agent_prefix) for name in self.agents.values()):
            raise ValueError("agents: a name begins with agent_prefix, so that another value could have it")
        for name in (*self.agents.values(), self.agent_prefix):
            if name.startswith("toolcrib-"):
                raise ValueError(f'"{name}": names that begin with toolcrib- are the broker\'s own')
        return self

    @property
    def own_tenants(self) -> frozenset[str]:
        """Whose agents its tokens can name."""
        return frozenset(self.tenants.values()) if self.tenant is None else frozenset({self.tenant})

    def resolve(self, base: Path) -> Issuer:
        """Make its relative paths absolute."""
        files = {name: getattr(self, name) for name in ("jwks_file", "ca_file")}
        return self.model_copy(update={name: base / path for name, path in files.items() if path})


class Identity(_Part):
    """Tokens beside client certificates; without issuers there is no door for them."""

    listen: str = Field("", description="host:port of the gRPC door for tokens: TLS, no client certificate")
    issuers: tuple[Issuer, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Identity:
        if bool(self.listen) != bool(self.issuers):
            raise ValueError("listen and [[identity.issuers]] belong together: give both, or neither")
        names = [issuer.issuer for issuer in self.issuers]
        if len(set(names)) < len(names):
            raise ValueError("an issuer stands twice; one [[identity.issuers]] says all about its tokens")
        for one, other in itertools.permutations(self.issuers, 2):
            _check_apart(one, other)
        return self

    def resolve(self, base: Path) -> Identity:
        """Make every relative path absolute."""
        return self.model_copy(update={"issuers": tuple(issuer.resolve(base) for issuer in self.issuers)})

    def prefixes(self, tenant: str) -> tuple[str, ...]:
        """List how names of a tenant's agents begin that only tokens may have."""
        own = (issuer for issuer in self.issuers if tenant in issuer.own_tenants)
        return tuple(issuer.agent_prefix for issuer in own if issuer.agent_prefix)


def _check_apart(one: Issuer, other: Issuer) -> None:
    """See that no token of one issuer can name an agent of the other's.

    Raises:
        ValueError: It could.
    """
    shared = one.own_tenants & other.own_tenants
    if not shared:
        return
    clash = set(one.agents.values()) & set(other.agents.values())
    if one.agent_prefix:
        names = (*other.agents.values(), other.agent_prefix)
        clash |= {name for name in names if name.startswith(one.agent_prefix)}
    if clash:
        raise ValueError(
            f'"{min(clash)}": an agent of tenant {min(shared)} that {one.issuer} and {other.issuer} could '
            "both name; give them names and prefixes of their own"
        )
