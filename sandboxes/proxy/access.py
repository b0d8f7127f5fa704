"""What one call may do over HTTP at one target: the broker makes it of manifest, grant and credentials."""

from __future__ import annotations

from dataclasses import dataclass

from credentials.injection import Injection
from tools.http_rules import HttpRule


@dataclass(frozen=True, slots=True)
class HttpCaps:
    """What a call may take of one target.

    Attributes:
        request_bytes: Of one request's body.
        response_bytes: Of one answer's body, unpacked.
        seconds: For one request, from its first byte to the last of its answer.
        requests: How many a call may make.
    """

    request_bytes: int = 1024 * 1024
    response_bytes: int = 4 * 1024 * 1024
    seconds: float = 30.0
    requests: int = 256


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """One target of kind "http", for one call.

    Attributes:
        target: The operator's name.
        allow: The manifest's rules; empty only where it is opaque.
        narrowed: The grant's rules: a request needs one of these as well. None: the grant does not narrow; an
            empty tuple allows nothing.
        opaque: TLS is not opened: no rules, nothing is added.
        injection: What is added; None: nothing.
    """

    target: str
    allow: tuple[HttpRule, ...]
    narrowed: tuple[HttpRule, ...] | None = None
    opaque: bool = False
    caps: HttpCaps = HttpCaps()
    injection: Injection | None = None


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """How the operator declared a target of kind "http".

    Attributes:
        name: The operator's name for it.
        host: Name or address that is connected to.
        port: TCP port.
        origins: What the tool's URLs begin with, "https://api.example" or with ":PORT" where it is not the
            scheme's own. All of one scheme; that decides about TLS toward the target.
        ca_pem: Verifies the target's certificate instead of the system's store; empty: the system's.
        networks: Private networks, "10.1.0.0/16", in which `host` may be found. Where `host` is itself an
            address, that one address is declared by it.
        digests: Whether SHA-256 of bodies stand in the records.
    """

    name: str
    host: str
    port: int
    origins: tuple[str, ...]
    ca_pem: str = ""
    networks: tuple[str, ...] = ()
    digests: bool = False

    @property
    def is_tls(self) -> bool:
        """Whether its origins are https."""
        return self.origins[0].startswith("https://")
