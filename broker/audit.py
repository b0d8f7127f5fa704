"""The audit chain: one record a decision, each bound to the one before by a keyed hash.

Rules:
1. The chain is one for the whole installation, over all tenants, and starts with sequence 1.
2. `payload` is canonical JSON and holds everything that is said, sequence, schema version and key id too.
3. `hash` = HMAC-SHA-256(key, previous || payload), hex; `previous` of the first record is 64 zeros.

What it shows: a record that was changed, removed, put in, or moved. What it cannot show by itself: that its
newest records were cut off, and anything done by somebody who has the key. For the first, keep the head that
`verify` returns somewhere else, and give it back as `anchor` the next time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.store.records import AuditEvent, AuditRecord

SCHEMA_VERSION = 1
FIRST_PREVIOUS = "0" * 64

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in a chain: enough to tell later that the chain still goes through it."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Read "sequence:hash" as `str` writes it.

        Raises:
            ValueError: It is none.
        """
        sequence, _, digest = text.strip().partition(":")
        if not sequence.isdecimal() or len(digest) != 64:
            raise ValueError(f'"{text}" is no anchor; it looks like 17:<64 hex digits>, as verify prints it')
        return cls(int(sequence), digest.lower())


START = Anchor(0, FIRST_PREVIOUS)


@dataclass(frozen=True, slots=True)
class Verified:
    """The chain holds from its start to `head`. An empty chain has the head 0."""

    head: Anchor


@dataclass(frozen=True, slots=True)
class Broken:
    """The chain does not hold; `sequence` is the first place where it shows."""

    sequence: int
    why: str


def seal(event: AuditEvent, head: Anchor, key: bytes, key_id: str) -> AuditRecord:
    """Make the record that follows `head`.

    Raises:
        ValueError: The event cannot be said in JSON, or its time has no zone.
    """
    sequence = head.sequence + 1
    payload = _payload(event, sequence, key_id)
    return AuditRecord(
        sequence, SCHEMA_VERSION, key_id, payload, head.hash, _chain_hash(key, head.hash, payload)
    )


class ChainBroken(Exception):
    """The chain does not hold; see `Broken`."""

    def __init__(self, found: Broken) -> None:
        super().__init__(f"the chain is broken: record {found.sequence} {found.why}")
        self.found = found


async def verify(
    records: AsyncIterable[AuditRecord], keys: Mapping[str, bytes], anchor: Anchor = START
) -> Verified | Broken:
    """Walk a chain from its first record, one at a time.

    Args:
        records: The whole chain, from sequence 1.
        keys: Key by key id.
        anchor: A head seen earlier; a chain that does not go through it is broken.
    """
    walk = Walk(keys, anchor)
    try:
        async for _ in walk.check(records):
            pass
        walk.end()
    except ChainBroken as broken:
        return broken.found
    return Verified(walk.head)


class Walk:
    """A chain that is checked while it is read: nobody sees a record before it was found to be right.

    Attributes:
        head: The last record that was checked.
    """

    def __init__(self, keys: Mapping[str, bytes], anchor: Anchor = START) -> None:
        self._keys, self._anchor = keys, anchor
        self.head = START

    async def check(self, records: AsyncIterable[AuditRecord]) -> AsyncIterator[AuditRecord]:
        """Pass on the records that follow the head.

        Raises:
            ChainBroken: At the first fault.
        """
        async for record in records:
            why = _find_fault(record, self.head, self._keys)
            if why is None and record.sequence == self._anchor.sequence and record.hash != self._anchor.hash:
                why = "is another record than the one that the anchor names"
            if why is not None:
                raise ChainBroken(Broken(self.head.sequence + 1, why))
            self.head = Anchor(record.sequence, record.hash)
            yield record

    def end(self) -> None:
        """Say that the chain ends here.

        Raises:
            ChainBroken: The anchor lies behind its end.
        """
        if self.head.sequence < self._anchor.sequence:
            why = f"the chain ends here, and the anchor is at {self._anchor.sequence}"
            raise ChainBroken(Broken(self.head.sequence + 1, why))


def _find_fault(record: AuditRecord, head: Anchor, keys: Mapping[str, bytes]) -> str | None:
    if record.sequence != head.sequence + 1:
        return f"is missing: record {record.sequence} follows {head.sequence}"
    if record.previous != head.hash:
        return "does not continue the record before it"
    key = keys.get(record.key_id)
    if key is None:
        return f'was made with key "{record.key_id}", which was not given'
    if not hmac.compare_digest(record.hash, _chain_hash(key, record.previous, record.payload)):
        return "was changed, or made with another key: its hash does not match"
    return _find_disagreement(record)


def _find_disagreement(record: AuditRecord) -> str | None:
    """Compare what stands beside the payload with what the payload, which the hash covers, says."""
    said = json.loads(record.payload)
    beside = {
        "sequence": record.sequence,
        "schema_version": record.schema_version,
        "key_id": record.key_id,
    }
    for name, value in beside.items():
        if said.get(name) != value:
            return f"was changed: its {name} is {value!r}, its payload says {said.get(name)!r}"
    if record.schema_version != SCHEMA_VERSION:
        return f"has schema version {record.schema_version}; this program knows {SCHEMA_VERSION}"
    return None


def _payload(event: AuditEvent, sequence: int, key_id: str) -> str:
    said = {
        "schema_version": SCHEMA_VERSION,
        "sequence": sequence,
        "key_id": key_id,
        "kind": event.kind,
        "tenant": event.tenant,
        "environment": event.environment,
        "at": _write_time(event.at),
        "call_id": event.call_id,
        "actor": event.actor,
        "details": dict(event.details),
    }
    try:
        return _encode(said)
    except TypeError as error:
        raise ValueError(f"audit event {event.kind}: {error}") from error


def _write_time(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()}: a time without a zone cannot be recorded")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _chain_hash(key: bytes, previous: str, payload: str) -> str:
    return hmac.digest(key, f"{previous}{payload}".encode(), hashlib.sha256).hex()
