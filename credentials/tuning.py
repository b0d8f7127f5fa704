"""How a session behaves: times, limits, the way to Vault, and who is told what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from credentials.engines import DEFAULT_MOUNTS
from credentials.heartbeat import Keeper
from credentials.lease import OwedLease
from credentials.transport import AsyncTransport, Peer, Transport
from credentials.vault_api import VaultApi

_log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _keep_nothing(call_id: str, owed: Sequence[OwedLease]) -> None:
    for lease in owed:
        _log.error("nobody takes over lease %s of call %s", lease.lease_id, call_id)


def _ignore() -> None:
    pass


@dataclass(frozen=True, slots=True)
class SessionTuning:
    """How a session behaves.

    Attributes:
        ca_file: PEM of the CA of Vault's certificate; None: the system's.
        certificate: Ours and its key, for the login by certificate.
        timeout_seconds: For one request, to connect and to answer.
        renew_seconds: Between two heartbeats.
        max_requests: Mints at once, and ends at once. A mint without room within the timeout is refused.
        role_check_seconds: How long a role that was found safe counts as safe.
        mounts: Mount path by plugin.
        transport: Makes the way to Vault.
        keeper: Makes what keeps the session alive; None: a `Heartbeat`.
        on_lost: Told when a session ended by itself: its leases are gone.
        on_opened: Told when there is a session, the first one and each that follows a lost one.
        on_owed: Told (call id, leases) what a cancelled mint made and could not end.
    """

    ca_file: Path | None = None
    certificate: tuple[Path, Path] | None = None
    timeout_seconds: float = 5.0
    renew_seconds: float = 5.0
    max_requests: int = 16
    role_check_seconds: float = 60.0
    mounts: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MOUNTS)
    transport: Callable[[Peer], Transport] = AsyncTransport
    keeper: Callable[[VaultApi], Keeper] | None = None
    on_lost: Callable[[], None] = _ignore
    on_opened: Callable[[], None] = _ignore
    on_owed: Callable[[str, Sequence[OwedLease]], None] = _keep_nothing
    now: Callable[[], datetime] = _utc_now

    def peer(self, address: str) -> Peer:
        """Say which Vault is asked, and how it is known."""
        certificate, private_key = self.certificate or (None, None)
        # Mints and ends have their own places, and the keeper has one.
        connections = 2 * self.max_requests + 1
        return Peer(address, self.ca_file, certificate, private_key, self.timeout_seconds, connections)
