"""What goes into the broker's state and comes out of it, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from broker.model import (
    CallRecord,
    Charge,
    SandboxRecord,
)

T = TypeVar("T")


class StoreError(Exception):
    """The state cannot be read or written. Nothing changed."""


class StaleEpoch(StoreError):
    """Another process has taken over since; this one may not change anything any more."""


class StoreBusy(StoreError):
    """Another process runs on this state; its epoch has not expired. Stop it, or wait until it has.

    Attributes:
        remaining_seconds: When its epoch expires, unless it says until then that it lives.
    """

    def __init__(self, message: str, remaining_seconds: float) -> None:
        super().__init__(message)
        self.remaining_seconds = remaining_seconds


class BudgetExhausted(Exception):
    """A charge does not fit into its window. Nothing was reserved.

    Attributes:
        charge: The charge that did not fit.
        used: What the window holds already.
        retry_after_seconds: When enough of it will have left the window; 0 where waiting cannot help.
    """

    def __init__(self, charge: Charge, used: int, retry_after_seconds: float) -> None:
        super().__init__(f"{charge.grant_id}: {used} of {charge.limit.limit} {charge.limit.unit} are used")
        self.charge, self.used, self.retry_after_seconds = charge, used, retry_after_seconds


class VersionExists(Exception):
    """The version is registered with another digest. Nothing changed."""


class AliasElsewhere(Exception):
    """The alias does not name the version that it was to leave. Nothing changed."""


class BaseChanged(Exception):
    """The grants are no longer those that the plan was made from. Nothing changed."""


@dataclass(frozen=True, slots=True)
class AliasStep:
    """An alias on its way back.

    Attributes:
        left: The version that it names.
        reached: The one that it named before.
    """

    tenant: str
    bundle: str
    alias: str
    left: str
    reached: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run of one broker process on this store.

    Attributes:
        installation: Random id made with the store; labels containers.
        number: Grows by one at each start.
    """

    installation: str
    number: int


@dataclass(frozen=True, slots=True)
class ClaimScope:
    """What one idempotency key is unique within."""

    tenant: str
    environment: str
    agent: str
    method: str
    key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What `claim` found.

    Attributes:
        won: True when the key is ours now; then `attempt` counts from 1 and `earlier` is None.
        earlier: The call that holds the key, finished or not. For one that is still before its reservation
            only `call_id`, `fingerprint` and state CLAIMED are meaningful.
        expired: The key is past its retention; it is never run again.
        restored: The key is unknown, but the state was restored from a backup so lately that it may have been
            used since the backup was made.
    """

    won: bool
    attempt: int = 1
    earlier: CallRecord | None = None
    expired: bool = False
    restored: bool = False


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision to be recorded. The store adds sequence, chain hash and key id.

    Attributes:
        kind: For example "call.refused", "call.reserved", "call.completed", "grants.applied".
        details: JSON-ready values; never arguments, results or secrets.
    """

    kind: str
    tenant: str
    environment: str
    at: datetime
    call_id: str = ""
    actor: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One link of the chain as it is stored. `payload` is canonical JSON; `hash` covers it and `previous`."""

    sequence: int
    schema_version: int
    key_id: str
    payload: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A registered version of a bundle. `state` is REGISTERED, USABLE or REJECTED."""

    tenant: str
    bundle: str
    version: str
    digest: str
    state: str
    descriptor_set: bytes
    manifest_yaml: str
    image_id: str
    registered_by: str
    registered: datetime
    reviewed_by: str = ""
    reviewed: datetime | None = None
    comment: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantFiles:
    """The grant files of a tenant as they were applied. An unknown tenant has none and an empty digest."""

    files: Mapping[str, str]
    digest: str
    applied: datetime | None = None
    applied_by: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `next_token` is empty on the last page."""

    items: Sequence[T]
    next_token: str = ""


Latest = Callable[[], Sequence[SandboxRecord]]
"""Tells what is known of a call's sandboxes now; any thread may ask."""
