"""[targets.NAME] of toolcrib.toml: what tools may reach when manifest and grant name it.

Rules:
1. A host is written in one way only: what a resolver would read as another address is refused.
2. What a tool's URLs begin with is declared, and is in one form, so that a request is for a target or is not.
3. What belongs to targets of kind "http" is said of no other: the bytes of those are not looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sandboxes.egress.addresses import TargetAddress
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.addresses import check_host, check_networks
from tools.http_rules import make_origin, read_origin

_MOST = 64
_MOST_CA_BYTES = 64 * 1024
_TLS_PORT = 443
_HTTP_KEYS = ("origins", "ca_file", "networks", "digests")


class TargetUnusable(ValueError):
    """What is declared of a target cannot be used; the message names it and the remedy."""


class Target(BaseModel):
    """A system that tools may reach when manifest and grant name it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["postgresql", "http", "smtp", "ldap", "ssh", "tls"]
    host: str
    port: int = Field(ge=1, le=65_535)
    settings: Mapping[str, str] = Field(default_factory=dict)
    origins: tuple[str, ...] = Field(
        (), max_length=_MOST, description="http: what tools' URLs begin with; empty: http://HOST:PORT"
    )
    ca_file: Path | None = Field(
        None, description="http: PEM of the CAs that verify the target's certificate; the system's, if absent"
    )
    networks: tuple[str, ...] = Field(
        (), max_length=_MOST, description="http: private networks in which its host may be found"
    )
    digests: bool = Field(False, description="http: SHA-256 of bodies stand in the records")

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if (problem := check_host(host)) is not None:
            raise ValueError(problem)
        return host

    @field_validator("networks")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if (problem := check_networks(networks)) is not None:
            raise ValueError(problem)
        return networks

    @field_validator("origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            form = read_origin(origin)
            if form is None:
                raise ValueError(
                    f"{origin[:200]!r} is no origin: write https://NAME or https://NAME:PORT, without path"
                )
            if (problem := check_host(urlsplit(form).hostname or "")) is not None:
                raise ValueError(f"{origin[:200]!r}: {problem}")
            if form != origin:
                raise ValueError(f"{origin[:200]!r} has a plainer form: write {form}")
        if len(set(origins)) < len(origins):
            raise ValueError("one stands twice; remove it")
        return origins

    @model_validator(mode="after")
    def _check_kind(self) -> Target:
        """See that what is said is said of the right kind, and of one scheme."""
        said = [key for key in _HTTP_KEYS if getattr(self, key)]
        if said and self.kind != "http":
            raise ValueError(f'{said[0]}: is for targets of kind "http" only; remove it')
        if self.kind == "http" and not self.origins and read_origin(self.all_origins[0]) is None:
            raise ValueError(f"origins: no URL can have the host {self.host!r}; say what URLs begin with")
        if self.kind == "http" and not self.origins and self.port == _TLS_PORT:
            # A credential would be sent there in clear before the target can say that it wants TLS.
            raise ValueError(f'origins: TLS is spoken at port 443; write origins = ["https://{self.host}"]')
        if len({origin.partition(":")[0] for origin in self.origins}) > 1:
            raise ValueError("origins: all have one scheme; declare a target for http and one for https")
        if self.ca_file is not None and not self.is_tls:
            raise ValueError("ca_file: nothing is verified at an http:// origin; use https:// or remove it")
        return self

    @property
    def is_tls(self) -> bool:
        """Whether the target is spoken to over TLS by the proxy."""
        return bool(self.origins) and self.origins[0].startswith("https://")

    @property
    def all_origins(self) -> tuple[str, ...]:
        """What URLs of the target begin with, also where the operator says no more than its address."""
        return self.origins or (make_origin("http", self.host, self.port),)

    def resolve(self, base: Path) -> Target:
        """Make its relative path absolute."""
        return self if self.ca_file is None else self.model_copy(update={"ca_file": base / self.ca_file})

    def address(self, name: str) -> TargetAddress:
        """Say where it is, as the egress process wants it."""
        return TargetAddress(name, self.kind, self.host, self.port, dict(self.settings))

    def http(self, name: str) -> HttpTarget:
        """Say what it is, as the HTTP proxy wants it; reads `ca_file`.

        Raises:
            TargetUnusable: The file cannot be read, or holds no certificate.
        """
        ca_pem = "" if self.ca_file is None else _read_authorities(f"targets.{name}.ca_file", self.ca_file)
        return HttpTarget(name, self.host, self.port, self.all_origins, ca_pem, self.networks, self.digests)


def _read_authorities(key: str, file: Path) -> str:
    try:
        pem = file.read_text("ascii")
    except (OSError, ValueError) as error:
        raise TargetUnusable(f"{key}: {file} cannot be read") from error
    if "-----BEGIN CERTIFICATE-----" not in pem:
        raise TargetUnusable(f"{key}: {file} holds no certificate in PEM")
    if len(pem) > _MOST_CA_BYTES:
        raise TargetUnusable(f"{key}: {file} is over {_MOST_CA_BYTES} bytes: keep the CAs of this target")
    return pem


def list_addresses(targets: Mapping[str, Target]) -> dict[str, TargetAddress]:
    """Say where all targets are."""
    return {name: target.address(name) for name, target in targets.items()}


def list_kinds(targets: Mapping[str, Target]) -> dict[str, str]:
    """Say of which kind all targets are."""
    return {name: target.kind for name, target in targets.items()}


def list_http(targets: Mapping[str, Target]) -> dict[str, HttpTarget]:
    """Say what those of kind "http" are.

    Raises:
        TargetUnusable: One cannot be used.
    """
    return {name: target.http(name) for name, target in targets.items() if target.kind == "http"}
