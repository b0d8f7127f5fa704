"""The five types that carry the order of a call, and the records it leaves.

`Caller` comes only out of authenticate, `Call` out of validate, `Grant` out of authorize, `Reservation` out
of reserve, `Answer` out of sanitize: a stage cannot be skipped because the next one asks for what it makes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from google.protobuf.message import Message

from sandboxes.egress.records import ConnectionRecord
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract, Effect
from tools.http_rules import HttpRule


class Role(enum.StrEnum):
    """What kind of party an identity is. Agents call tools, orchestrators open workflows for them; the others
    are people.
    """

    AGENT = "agent"
    ORCHESTRATOR = "orchestrator"
    AUTHOR = "author"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the channel proves it: never from a field of the request.

    Attributes:
        tenant: Whose world the caller acts in.
        name: Unique within tenant and role.
        role: Agent, or the kind of person.
        subject: The user on whose behalf an agent acts; empty when none.
        identity: The identity as it stands in the certificate; of a token "oidc:ISSUER#AGENT".
        certificate: SHA-256 of the certificate's DER form, lower-case hex; empty for the broker itself.
        twins: Of other forms of it that TLS takes as well (broker/certificates.py).
    """

    tenant: str
    name: str
    role: Role
    subject: str
    identity: str
    certificate: str = ""
    twins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A request that satisfies the contract of one tool version.

    Attributes:
        call_id: Ours, unique, sortable by time.
        environment: Against which world, for example "prod".
        workflow: Id of the workflow that it belongs to; empty where it came without a handle.
        key: The agent's idempotency key; empty for a read without one.
        canonical: Exactly the bytes that the tool will get.
        digest: HMAC-SHA-256 of method and canonical bytes under the tenant's key, hex.
        deadline: On the monotonic clock, seconds.
        new_since: The caller's word that the key was not used before that moment; None when not given.
        target_key: What the target gets as idempotency key: an HMAC of the key's scope; empty without a key.
    """

    call_id: str
    caller: Caller
    environment: str
    workflow: str
    key: str
    version: ToolVersion
    contract: Contract
    message: Message
    canonical: bytes
    digest: str
    deadline: float
    started: datetime
    traceparent: str = ""
    new_since: datetime | None = None
    target_key: str = ""

    @property
    def is_write(self) -> bool:
        """True for DRAFT and WRITE: what must have a key and must not run twice."""
        return self.contract.effect is not Effect.READ


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A ceiling that a grant sets over a sliding window.

    Attributes:
        unit: "calls", or "minor:EUR" for an amount in that currency's minor units.
        limit: The most that one window may hold.
        window_seconds: Length of the window.
    """

    unit: str
    limit: int
    window_seconds: int


EgressRules = tuple[tuple[str, HttpRule], ...] | None
"""Rules of a grant over HTTP requests, each with its target; None: it has none."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What allowed a call, and under which conditions.

    Attributes:
        grant_id: The policy's @id.
        ask: Why a person has to approve each call; empty when nobody has to.
        targets: Names of the operator's targets that the call may reach.
        destinations: Values of destination fields that the grant itself trusts.
        limits: Ceilings that reserve charges.
        egress: Rules over HTTP requests, each with its target: a request needs one of these beside one of the
            manifest. A target that none names gets nothing. None: the manifest's rules alone decide.
    """

    grant_id: str
    ask: str = ""
    targets: frozenset[str] = frozenset()
    destinations: frozenset[str] = frozenset()
    limits: tuple[BudgetLimit, ...] = ()
    egress: EgressRules = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes from one budget of a grant."""

    grant_id: str
    limit: BudgetLimit
    amount: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """Proof that call, grant and budgets were committed durably, under one attempt and epoch."""

    call_id: str
    grant: Grant
    attempt: int
    epoch: int
    charges: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that a call gave back.

    Attributes:
        name: A plain file name, as the tool says; so is `media_type`.
        sha256: Of the content, hex.
        content: None where only the record was read: `Store.read_artefact` has it.
    """

    name: str
    media_type: str
    size_bytes: int
    sha256: str
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A result that was checked, cleaned and labelled, or an earlier one replayed.

    Attributes:
        contract: What the result is a message of.
        result: The response message's canonical bytes.
        labels: Where the content came from, for example "tool:shop.v1.Orders/LookupOrder@1.0.0".
        first_call_time: When the first call with this key started; set on a replay only.
        artefacts: The files that came with it; a replay has no content of them.
    """

    call_id: str
    contract: Contract
    result: bytes
    labels: tuple[str, ...] = ()
    replayed: bool = False
    first_call_time: datetime | None = None
    artefacts: tuple[Artefact, ...] = ()


class CallState(enum.StrEnum):
    """The states of a call record; the names are those of toolcrib.v1.CallState."""

    CLAIMED = "CLAIMED"
    RESERVED = "RESERVED"
    DISPATCHED = "DISPATCHED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    IN_DOUBT = "IN_DOUBT"
    REFUSED = "REFUSED"
    NEEDS_HUMAN = "NEEDS_HUMAN"


class Mark(enum.StrEnum):
    """What was noticed about a call and has to be looked into."""

    SECRET_IN_RESULT = "SECRET_IN_RESULT"  # noqa: S105 - a mark's name
    SECRET_IN_LOG = "SECRET_IN_LOG"  # noqa: S105
    SECRET_IN_ERROR = "SECRET_IN_ERROR"  # noqa: S105
    SESSION_LOST = "SESSION_LOST"
    STOPPED = "STOPPED"
    TRUNCATED = "TRUNCATED"


class StageTime(NamedTuple):
    """When a stage began, in microseconds since the call started, and how long it took."""

    stage: str
    start_micros: int
    duration_micros: int


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A minted credential as the record knows it: enough to end it, never the secret.

    Attributes:
        lease_id: Vault's lease id, or ours where the engine makes none.
        accessor: Accessor of the child token under which the lease was read.
        credential: The manifest's name for it.
        username: The minted user name; no secret.
        confirmed_dead: When look-up confirmed the end; None while it is owed.
        engine: Vault's secrets engine, as a manifest names it.
        role: The engine's role.
        expires: When Vault ends it by itself; None where that is not known.
    """

    lease_id: str
    accessor: str
    credential: str
    username: str
    minted: datetime
    confirmed_dead: datetime | None = None
    engine: str = "database"
    role: str = ""
    expires: datetime | None = None

    def facts(self) -> dict[str, str]:
        """Say for the audit enough to find its making and its end in Vault's own log."""
        return {
            "lease": self.lease_id,
            "accessor": self.accessor,
            "credential": self.credential,
            "engine": self.engine,
            "role": self.role,
        }


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """The container made for a call."""

    container_id: str
    image_id: str
    made: datetime
    gone: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as the store keeps it.

    Attributes:
        effect: None where the call was refused before its tool was known.
        request: The canonical request, for a write; None once its tenant was erased.
        result: The response message's canonical bytes, when it SUCCEEDED.
        failure: More about an error, as `CallError.details` has it.
        marks: What was noticed and has to be looked into, in the order of `Mark`.
        artefacts: The files that it gave back, when it SUCCEEDED; gone once its tenant was erased.
        removed: What cleaning took out of untrusted fields, a line a field; never content.
        workflow: Id of the workflow that it belongs to; empty where it came without a handle.
        connections: What its tool reached, or tried to, in the order of their beginnings.
        connections_dropped: How many more there were that are not kept.
    """

    call_id: str
    tenant: str
    environment: str
    agent: str
    subject: str
    method: str
    tool_version: str
    effect: Effect | None
    key: str
    fingerprint: str
    attempt: int
    epoch: int
    state: CallState
    started: datetime
    ended: datetime | None = None
    reason: Reason = Reason.REASON_UNSPECIFIED
    message: str = ""
    failure: Mapping[str, str] = field(default_factory=dict)
    grant_id: str = ""
    request: bytes | None = None
    result: bytes | None = None
    labels: tuple[str, ...] = ()
    stages: tuple[StageTime, ...] = ()
    leases: tuple[LeaseRecord, ...] = ()
    sandboxes: tuple[SandboxRecord, ...] = ()
    tool_log: str = ""
    marks: tuple[Mark, ...] = ()
    removed: tuple[str, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    workflow: str = ""
    connections: tuple[ConnectionRecord, ...] = ()
    connections_dropped: int = 0


class BrakeKind(enum.StrEnum):
    """What a brake holds back; the names are those of toolcrib.v1.BrakeKind."""

    AGENT = "AGENT"
    TOOL = "TOOL"
    TENANT = "TENANT"
    ALL = "ALL"
    CERTIFICATE = "CERTIFICATE"


@dataclass(frozen=True, slots=True)
class Brake:
    """An operator's order to refuse new calls, in force until it is lifted.

    Attributes:
        tenant: Whose calls; empty for ALL.
        value: Agent's name, tool or service, or SHA-256 of a certificate; empty for TENANT and ALL.
        set_by: Identity of the operator.
    """

    brake_id: str
    kind: BrakeKind
    tenant: str
    value: str
    reason: str
    set_by: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class LiveLease:
    """A lease whose end is not confirmed, and its call (without request, result and log)."""

    call: CallRecord
    lease: LeaseRecord


@dataclass(frozen=True, slots=True)
class GrantUse:
    """How often a grant allowed an agent a tool, and when last. Counts calls that were reserved."""

    grant_id: str
    environment: str
    agent: str
    method: str
    calls: int
    last: datetime
