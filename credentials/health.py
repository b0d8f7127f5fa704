"""Whether a Vault is there, open, and of one mind with us about the time. Asks without any token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

_PATH = "/v1/sys/health?standbyok=true&sealedcode=200&uninitcode=200"


@dataclass(frozen=True, slots=True)
class VaultHealth:
    """What a Vault says of itself to anybody.

    Attributes:
        clock_offset_seconds: Its clock less ours; it is told in whole seconds.
    """

    version: str
    initialized: bool
    sealed: bool
    clock_offset_seconds: float


class VaultSilent(Exception):
    """There is no Vault that answers.

    Attributes:
        remedy: What to do about it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def read_health(address: str, *, ca_file: Path | None = None, timeout_seconds: float = 5.0) -> VaultHealth:
    """Ask a Vault for its health.

    Raises:
        VaultSilent: It does not answer, its certificate is not trusted, or it is no Vault.
    """
    with requests.Session() as http:
        http.trust_env = False
        http.verify = str(ca_file) if ca_file else True
        try:
            response = http.get(address.rstrip("/") + _PATH, timeout=timeout_seconds, allow_redirects=False)
            received = time.time()
            said: dict[str, Any] = response.json()
            return VaultHealth(
                version=str(said["version"]),
                initialized=bool(said["initialized"]),
                sealed=bool(said["sealed"]),
                # Told cut to seconds: half a second more is the best guess.
                clock_offset_seconds=said["server_time_utc"] + 0.5 - received,
            )
        except requests.exceptions.SSLError as error:
            raise VaultSilent(
                f"the certificate of {address} is not trusted", "correct vault.ca_file"
            ) from error
        except (OSError, requests.exceptions.InvalidURL) as error:
            if isinstance(error, requests.exceptions.JSONDecodeError):
                raise VaultSilent(f"{address} answers, and is no Vault", "correct vault.address") from error
            raise VaultSilent(f"{address} does not answer", "start it, or correct vault.address") from error
        except (KeyError, TypeError, ValueError) as error:
            raise VaultSilent(f"{address} answers, and is no Vault", "correct vault.address") from error
