"""What an MCP server is started with, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
TOKEN_FILE = "mcp-token"  # noqa: S105 - a file's name


class OptionInvalid(Exception):
    """An option, or a combination of options, that a server is not started with. Says what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def shown_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def names(self, port: int) -> frozenset[str]:
        """What a client that means this address sends in the header `Host`.

        Args:
            port: The port that was bound, where the address said 0.
        """
        hosts = {self.shown_host, *(("localhost",) if self.is_loopback else ())}
        return frozenset(f"{host}:{port}" for host in hosts) | (
            frozenset(hosts) if port == 80 else frozenset()
        )


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """One MCP server.

    Attributes:
        profile: Folder with profile.toml and certificates of the agent that the server acts as.
        tools: Patterns of the methods that are offered, as in `shop.v1.*`; empty: all that the agent may see.
        workflow: Handle of the workflow that all calls belong to; a host's `_meta` may name another.
        environment: Empty: the broker's first one.
        timeout_seconds: How long a call may take, with its retries.
        refresh_seconds: How often the list of tools is read again.
        http: Where to listen; None: stdio.
        http_token_file: The bearer token of HTTP clients; made when it is not there. None: `mcp-token` in the
            profile's folder.
        allow_remote: Listen on an address that other machines can reach, too.
        allow_hosts: More values of `Host` that clients may use, for a server behind a proxy.
    """

    profile: Path
    tools: tuple[str, ...] = ()
    workflow: str = ""
    environment: str = ""
    timeout_seconds: float = 120.0
    refresh_seconds: float = 30.0
    http: Address | None = None
    http_token_file: Path | None = None
    allow_remote: bool = False
    allow_hosts: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what would offer the agent's rights to strangers.

        Raises:
            OptionInvalid: The address can be reached from other machines, and that was not asked for, or no
                token file was named for it; or the timeout is none.
        """
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise OptionInvalid(f"--timeout {self.timeout_seconds:g}: give a number of seconds over 0")
        if not self.profile.exists():
            raise OptionInvalid(f"{self.profile}: there is no such profile; `toolcrib dev` writes some")
        if self.http is None or self.http.is_loopback:
            return
        if not self.allow_remote:
            raise OptionInvalid(
                f"{self.http.host} can be reached from other machines, and whoever reaches the server "
                f"acts as the agent; listen on {LOOPBACK}, or say --allow-remote with --http-token-file FILE"
            )
        if self.http_token_file is None:
            raise OptionInvalid(
                "--allow-remote needs --http-token-file FILE: say where the clients' token is"
            )

    @property
    def token_file(self) -> Path:
        """Where the HTTP clients' token is, or will be."""
        folder = self.profile if self.profile.is_dir() else self.profile.parent
        return self.http_token_file or folder / TOKEN_FILE


def parse_address(text: str) -> Address:
    """Read HOST:PORT; HOST is an IP address or `localhost`.

    Raises:
        OptionInvalid: It is none.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = Address(str(ipaddress.ip_address(LOOPBACK if host == "localhost" else host)), int(port))
    except ValueError as error:
        raise OptionInvalid(f"{text}: give an IP address and a port, for example {LOOPBACK}:8765") from error
    if not 0 <= address.port <= 65535:
        raise OptionInvalid(f"{text}: a port is a number up to 65535")
    return address
