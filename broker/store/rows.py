"""Records as rows of the database, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from broker.model import (
    Brake,
    BrakeKind,
    CallRecord,
    CallState,
    GrantUse,
    LeaseRecord,
    Mark,
    SandboxRecord,
    StageTime,
)
from broker.store.cipher import Contents, KeptCall
from broker.store.moments import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from broker.store.records import AuditRecord, GrantFiles, VersionRow
from broker.store.rules import KeyRow
from tools.contract import Effect

Row = Mapping[str, object]


def write_call(kept: KeptCall) -> dict[str, object]:
    """Turn a call into the values of its row; its leases have rows of their own."""
    call, contents = kept.call, kept.contents
    return {
        "tenant": call.tenant,
        "environment": call.environment,
        "call_id": call.call_id,
        "agent": call.agent,
        "subject": call.subject,
        "method": call.method,
        "tool_version": call.tool_version,
        "effect": call.effect.value if call.effect else None,
        "key": call.key,
        "fingerprint": call.fingerprint,
        "attempt": call.attempt,
        "epoch": call.epoch,
        "state": call.state.value,
        "started": to_micros(call.started),
        "ended": to_micros_or_none(call.ended),
        "reason": int(call.reason),
        "message": call.message,
        "failure": json.dumps(dict(call.failure)) if call.failure else "{}",
        "grant_id": call.grant_id,
        "request": contents.request,
        "result": contents.result,
        "labels": json.dumps(call.labels) if call.labels else "[]",
        "stages": json.dumps(call.stages),
        "sandboxes": write_sandboxes(call.sandboxes),
        "tool_log": contents.tool_log,
        "marks": json.dumps(call.marks) if call.marks else "[]",
        "removed": json.dumps(call.removed) if call.removed else "[]",
        "workflow": call.workflow,
        "connections": contents.connections,
    }


def read_call(row: sqlite3.Row, leases: Sequence[LeaseRecord]) -> KeptCall:
    """Turn a row and its leases into the call."""
    call = CallRecord(
        call_id=row["call_id"],
        tenant=row["tenant"],
        environment=row["environment"],
        agent=row["agent"],
        subject=row["subject"],
        method=row["method"],
        tool_version=row["tool_version"],
        effect=Effect(row["effect"]) if row["effect"] else None,
        key=row["key"],
        fingerprint=row["fingerprint"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        state=CallState(row["state"]),
        started=from_micros(row["started"]),
        ended=from_micros_or_none(row["ended"]),
        reason=row["reason"],
        message=row["message"],
        failure=json.loads(row["failure"]),
        grant_id=row["grant_id"],
        labels=tuple(json.loads(row["labels"])),
        stages=tuple(StageTime(*one) for one in json.loads(row["stages"])),
        leases=tuple(leases),
        sandboxes=tuple(_read_sandbox(one) for one in json.loads(row["sandboxes"])),
        marks=tuple(Mark(one) for one in json.loads(row["marks"])),
        removed=tuple(json.loads(row["removed"])),
        workflow=row["workflow"],
    )
    contents = Contents(row["request"], row["result"], row["tool_log"], connections=row["connections"])
    return KeptCall(call, contents)


def write_sandboxes(sandboxes: Sequence[SandboxRecord]) -> str:
    """Turn a call's containers into the value of its row."""
    return json.dumps([_write_sandbox(one) for one in sandboxes]) if sandboxes else "[]"


def _write_sandbox(one: SandboxRecord) -> Sequence[object]:
    return one.container_id, one.image_id, to_micros(one.made), to_micros_or_none(one.gone)


def _read_sandbox(values: Sequence[object]) -> SandboxRecord:
    container_id, image_id, made, gone = values
    assert isinstance(made, int)
    assert gone is None or isinstance(gone, int)
    return SandboxRecord(str(container_id), str(image_id), from_micros(made), from_micros_or_none(gone))


def write_lease(call: CallRecord, position: int, lease: LeaseRecord) -> dict[str, object]:
    """Turn a call's lease into the values of its row."""
    return {
        "tenant": call.tenant,
        "environment": call.environment,
        "call_id": call.call_id,
        "position": position,
        "lease_id": lease.lease_id,
        "accessor": lease.accessor,
        "credential": lease.credential,
        "username": lease.username,
        "minted": to_micros(lease.minted),
        "confirmed_dead": to_micros_or_none(lease.confirmed_dead),
        "engine": lease.engine,
        "role": lease.role,
        "expires": to_micros_or_none(lease.expires),
    }


def read_lease(row: sqlite3.Row) -> LeaseRecord:
    """Turn a row into a lease."""
    return LeaseRecord(
        lease_id=row["lease_id"],
        accessor=row["accessor"],
        credential=row["credential"],
        username=row["username"],
        minted=from_micros(row["minted"]),
        confirmed_dead=from_micros_or_none(row["confirmed_dead"]),
        engine=row["engine"],
        role=row["role"],
        expires=from_micros_or_none(row["expires"]),
    )


def read_key(row: sqlite3.Row) -> KeyRow:
    """Turn a row into a key."""
    return KeyRow(row["attempt"], from_micros(row["claimed"]), bool(row["free"]), row["epoch"])


def write_version(row: VersionRow) -> dict[str, object]:
    """Turn a version into the values of its row; its aliases have rows of their own."""
    return {
        "tenant": row.tenant,
        "bundle": row.bundle,
        "version": row.version,
        "digest": row.digest,
        "state": row.state,
        "descriptor_set": row.descriptor_set,
        "manifest_yaml": row.manifest_yaml,
        "image_id": row.image_id,
        "registered_by": row.registered_by,
        "registered": to_micros(row.registered),
        "reviewed_by": row.reviewed_by,
        "reviewed": to_micros_or_none(row.reviewed),
        "comment": row.comment,
    }


def read_version(row: sqlite3.Row, aliases: Sequence[str]) -> VersionRow:
    """Turn a row and its aliases into the version."""
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (a Row iterates over its values)
    values["registered"] = from_micros(row["registered"])
    values["reviewed"] = from_micros_or_none(row["reviewed"])
    return VersionRow(**values, aliases=tuple(aliases))


def read_grants(row: sqlite3.Row, files: Mapping[str, str]) -> GrantFiles:
    """Turn a row and its files into a tenant's grants."""
    return GrantFiles(files, row["digest"], from_micros_or_none(row["applied"]), row["applied_by"])


def write_brake(brake: Brake) -> dict[str, object]:
    """Turn a brake into the values of its row."""
    return {
        "tenant": brake.tenant,
        "kind": brake.kind.value,
        "value": brake.value,
        "brake_id": brake.brake_id,
        "reason": brake.reason,
        "set_by": brake.set_by,
        "set_at": to_micros(brake.set_at),
    }


def read_brake(row: sqlite3.Row) -> Brake:
    """Turn a row into a brake."""
    return Brake(
        row["brake_id"],
        BrakeKind(row["kind"]),
        row["tenant"],
        row["value"],
        row["reason"],
        row["set_by"],
        from_micros(row["set_at"]),
    )


def read_use(row: sqlite3.Row) -> GrantUse:
    """Turn a row into how often a grant was used."""
    return GrantUse(
        row["grant_id"],
        row["environment"],
        row["agent"],
        row["method"],
        row["calls"],
        from_micros(row["last"]),
    )


def read_audit_record(row: sqlite3.Row) -> AuditRecord:
    """Turn a row into a link of the audit chain."""
    return AuditRecord(
        row["sequence"], row["schema_version"], row["key_id"], row["payload"], row["previous"], row["hash"]
    )
