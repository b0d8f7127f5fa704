"""Turns the broker's records into the public API's messages, and lists into pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from broker.catalogue import Entry
from broker.errors import Refused
from broker.model import Artefact, CallRecord, LeaseRecord, SandboxRecord
from broker.store.records import VersionRow
from sandboxes.egress.records import ConnectionRecord
from toolcrib.v1 import broker_pb2, registry_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Contract

MAX_PAGE_SIZE = 500

T = TypeVar("T")


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Convert a time; None stays unset."""
    if moment is None:
        return None
    converted = Timestamp()
    converted.FromDatetime(moment)
    return converted


def page_size(asked: int, default: int) -> int:
    """Read a page size: 0 means the default, more than the most means the most.

    Raises:
        Refused: PAGE_TOKEN_INVALID, it is negative.
    """
    if asked < 0:
        raise bad_page("page_size must not be negative")
    return min(asked or default, MAX_PAGE_SIZE)


def bad_page(message: str) -> Refused:
    """Say that a list cannot be read on from there."""
    return Refused(Reason.REASON_PAGE_TOKEN_INVALID, f"{message}; start again without a page token")


def slice_page(items: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """Cut a page from a list that is held in memory.

    Raises:
        Refused: PAGE_TOKEN_INVALID.
    """
    start = _offset(token) if token else 0
    if start > len(items):
        raise bad_page("the page token lies behind the end of the list")
    end = start + size
    following = base64.urlsafe_b64encode(f"offset:{end}".encode()).decode() if end < len(items) else ""
    return items[start:end], following


def _offset(token: str) -> int:
    try:
        kind, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if kind == "offset" and number.isdecimal():
            return int(number)
    except (ValueError, binascii.Error):
        pass
    raise bad_page("the page token is not one that this list gave")


def tool_message(entry: Entry, contract: Contract) -> broker_pb2.Tool:
    """Describe a tool in short."""
    return broker_pb2.Tool(
        name=contract.method,
        description=contract.description,
        effect=contract.effect.value,
        reach=contract.reach.value,
        scope=contract.scope,
        version=entry.row.version,
        bundle=entry.row.bundle,
    )


def call_message(record: CallRecord, *, for_people: bool) -> broker_pb2.Call:
    """Show a call's record; the tool's log, and what it connected to, only to people."""
    message = broker_pb2.Call(
        call_id=record.call_id,
        tenant=record.tenant,
        environment=record.environment,
        agent=record.agent,
        subject=record.subject,
        tool=record.method,
        tool_version=record.tool_version,
        effect=record.effect.value if record.effect else None,
        state=record.state.value,
        reason=record.reason,
        message=record.message,
        started=timestamp(record.started),
        ended=timestamp(record.ended),
        request_digest=record.fingerprint,
        grant_id=record.grant_id,
        labels=record.labels,
        tool_log=record.tool_log if for_people else "",
        marks=[mark.value for mark in record.marks],
        removed=record.removed,
        workflow=record.workflow,
    )
    for stage in record.stages:
        message.stages.add(
            stage=stage.stage, start_micros=stage.start_micros, duration_micros=stage.duration_micros
        )
    message.leases.extend(_lease_message(lease) for lease in record.leases)
    message.sandboxes.extend(_sandbox_message(sandbox) for sandbox in record.sandboxes)
    message.artefacts.extend(_artefact_message(artefact) for artefact in record.artefacts)
    if for_people:
        message.connections.extend(_connection_message(one) for one in record.connections)
        message.connections_dropped = record.connections_dropped
    return message


def _connection_message(record: ConnectionRecord) -> broker_pb2.Connection:
    return broker_pb2.Connection(
        target=record.target,
        address=record.address,
        opened=timestamp(record.opened),
        closed=timestamp(record.closed),
        bytes_up=record.bytes_up,
        bytes_down=record.bytes_down,
        outcome=str(record.outcome),
        detail=record.detail,
        method=record.method,
        path_template=record.path_template,
        status=record.status,
        rule=record.rule,
        grant_rule=record.grant_rule,
        injected=record.injected,
        stripped=record.stripped,
        request_sha256=record.request_sha256,
        response_sha256=record.response_sha256,
    )


def _artefact_message(artefact: Artefact) -> broker_pb2.Artefact:
    return broker_pb2.Artefact(
        name=artefact.name,
        media_type=artefact.media_type,
        size_bytes=artefact.size_bytes,
        sha256=artefact.sha256,
    )


def _lease_message(lease: LeaseRecord) -> broker_pb2.LeaseRecord:
    return broker_pb2.LeaseRecord(
        credential=lease.credential,
        username=lease.username,
        minted=timestamp(lease.minted),
        confirmed_dead=timestamp(lease.confirmed_dead),
        engine=lease.engine,
        role=lease.role,
    )


def _sandbox_message(sandbox: SandboxRecord) -> broker_pb2.SandboxRecord:
    return broker_pb2.SandboxRecord(
        container_id=sandbox.container_id,
        image_id=sandbox.image_id,
        made=timestamp(sandbox.made),
        gone=timestamp(sandbox.gone),
    )


def version_message(row: VersionRow, tools: Sequence[str]) -> registry_pb2.Version:
    """Show a registered version."""
    return registry_pb2.Version(
        bundle=row.bundle,
        version=row.version,
        state=row.state,
        digest=row.digest,
        image_id=row.image_id,
        registered_by=row.registered_by,
        registered=timestamp(row.registered),
        reviewed_by=row.reviewed_by,
        reviewed=timestamp(row.reviewed),
        aliases=sorted(row.aliases),
        tools=sorted(tools),
    )
