"""Who a client is to the broker: a certificate, or a bearer token; always over TLS.

There is no way to connect without TLS: a token or a result would be readable on the way.
"""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

TokenSource = Callable[[], str | Awaitable[str]]


class ProfileInvalid(Exception):
    """A profile or one of its files cannot be used; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """A client certificate: three PEM files.

    Attributes:
        ca: The CA of the broker's certificate.
        certificate: The client's own; its SPIFFE id says who calls.
        private_key: Of the certificate.
    """

    ca: Path
    certificate: Path
    private_key: Path

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            ProfileInvalid: One cannot be read.
        """
        ca, certificate, key = (_read(file) for file in (self.ca, self.certificate, self.private_key))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token of an issuer that the broker takes.

    Attributes:
        token: The token, or a function that gives a fresh one; it is asked before every try, so it should
            keep one until it runs out. An asynchronous function is for `AsyncClient` only.
        ca: The CA of the broker's certificate; None: the system's.
    """

    token: str | TokenSource = field(repr=False)
    ca: Path | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the CA.

        Raises:
            ProfileInvalid: It cannot be read.
        """
        return grpc.ssl_channel_credentials(_read(self.ca) if self.ca else None)

    @classmethod
    def from_file(cls, file: Path, ca: Path | None = None) -> Token:
        """Read the token from a file before every try, as one that somebody else keeps fresh."""
        return cls(lambda: _read(file).decode("ascii", "replace").strip(), ca)


Credentials = Certificates | Token


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a broker is and who we are to it: one identity's folder with profile.toml beside its files."""

    address: str
    credentials: Credentials


def read_profile(path: Path | str) -> Profile:
    """Read profile.toml, or the one in a folder.

    It names `address`, `ca`, and either `certificate` and `private_key` or `token_file`; files lie beside it.

    Raises:
        ProfileInvalid: It is missing, or lacks a key.
    """
    given = Path(path)
    file = given / "profile.toml" if given.is_dir() else given
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return Profile(str(document["address"]), _read_credentials(document, file.parent))
    except OSError as error:
        raise ProfileInvalid(
            f"{file}: cannot be read ({error.strerror}); `toolcrib dev` writes profiles under clients/"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileInvalid(
            f"{file}: needs address, ca, and certificate with private_key or token_file ({error})"
        ) from error


def _read_credentials(document: dict[str, str], folder: Path) -> Credentials:
    ca = folder / document["ca"]
    if "token_file" in document:
        return Token.from_file(folder / document["token_file"], ca)
    return Certificates(ca, folder / document["certificate"], folder / document["private_key"])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ProfileInvalid(f"{file}: cannot be read ({error.strerror})") from error
