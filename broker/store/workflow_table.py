"""Workflows, their labels and trusted destinations in the database: plain functions on a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from broker.store.moments import from_micros, to_micros
from broker.workflow_records import Imprint, Marks, Workflow, WorkflowLabel, WorkflowName

_OPEN = "INSERT INTO workflows VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LABEL = """
INSERT INTO workflow_labels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET last = max(last, excluded.last), bare = max(bare, excluded.bare)
"""
_TRUST = """
INSERT INTO trusted_destinations VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET at = max(at, excluded.at)
"""
_FORGET = """
DELETE FROM trusted_destinations
WHERE tenant = ? AND environment = ? AND agent = ? AND workflow_id = ? AND at < ?
"""
_REMOVE = (
    "DELETE FROM workflow_labels WHERE last < ?1 AND workflow_id = ''"
    " OR workflow_id IN (SELECT workflow_id FROM workflows WHERE expires < ?1)",
    "DELETE FROM trusted_destinations WHERE at < ?1"
    " OR workflow_id IN (SELECT workflow_id FROM workflows WHERE expires < ?1)",
    "DELETE FROM workflows WHERE expires < ?1",
)
_LABELS_OF = """
SELECT * FROM workflow_labels
WHERE tenant = ? AND environment = ? AND agent = ? AND workflow_id = ? ORDER BY since, label
"""


def open_workflow(connection: sqlite3.Connection, workflow: Workflow) -> None:
    """Add a workflow."""
    times = to_micros(workflow.opened), to_micros(workflow.expires)
    connection.execute(
        _OPEN,
        (
            workflow.tenant,
            workflow.environment,
            workflow.workflow_id,
            workflow.agent,
            workflow.description,
            workflow.opened_by,
            *times,
        ),
    )


def find_workflow(connection: sqlite3.Connection, tenant: str, workflow_id: str) -> Workflow | None:
    """Read a workflow of a tenant."""
    row = connection.execute(
        "SELECT * FROM workflows WHERE tenant = ? AND workflow_id = ?", (tenant, workflow_id)
    ).fetchone()
    return _read_workflow(row) if row else None


def select_labels(connection: sqlite3.Connection, name: WorkflowName) -> Sequence[WorkflowLabel]:
    """Read the labels of a workflow, oldest first."""
    return [_read_label(row) for row in connection.execute(_LABELS_OF, name)]


def add_imprint(connection: sqlite3.Connection, imprint: Imprint) -> None:
    """Write what a call leaves on its workflow."""
    for name, label in imprint.spread():
        bare = to_micros(label.last_bare) if label.last_bare else 0
        times = to_micros(label.since), to_micros(label.last), bare
        connection.execute(_LABEL, (*name, label.label, label.call_id, *times))
    if not imprint.trusted:
        return
    connection.execute(_FORGET, (*imprint.workflow, to_micros(imprint.forget_before)))
    at = to_micros(imprint.at)
    connection.executemany(_TRUST, [(*imprint.workflow, mac, at) for mac in imprint.trusted])


def select_marks(connection: sqlite3.Connection) -> Marks:
    """Read everything that is on record of workflows."""
    workflows = connection.execute("SELECT * FROM workflows ORDER BY opened, workflow_id")
    labels = connection.execute("SELECT * FROM workflow_labels")
    trusted = connection.execute("SELECT * FROM trusted_destinations")
    return Marks(
        [_read_workflow(row) for row in workflows],
        [(_read_name(row), _read_label(row)) for row in labels],
        [(_read_name(row), row["mac"], from_micros(row["at"])) for row in trusted],
    )


def remove_ended(connection: sqlite3.Connection, before: datetime) -> None:
    """Remove what ended before a moment, with all that it held."""
    for statement in _REMOVE:
        connection.execute(statement, (to_micros(before),))


def erase(connection: sqlite3.Connection, tenant: str) -> None:
    """Remove what people wrote about a tenant's workflows, and whom results named; their labels stay."""
    connection.execute("UPDATE workflows SET description = '' WHERE tenant = ?", (tenant,))
    connection.execute("DELETE FROM trusted_destinations WHERE tenant = ?", (tenant,))


def _read_workflow(row: sqlite3.Row) -> Workflow:
    return Workflow(
        row["tenant"],
        row["environment"],
        row["workflow_id"],
        row["agent"],
        row["description"],
        row["opened_by"],
        from_micros(row["opened"]),
        from_micros(row["expires"]),
    )


def _read_name(row: sqlite3.Row) -> WorkflowName:
    return WorkflowName(row["tenant"], row["environment"], row["agent"], row["workflow_id"])


def _read_label(row: sqlite3.Row) -> WorkflowLabel:
    bare = from_micros(row["bare"]) if row["bare"] else None
    since, last = from_micros(row["since"]), from_micros(row["last"])
    return WorkflowLabel(row["label"], row["call_id"], since, last, bare)
