"""The part of the SQLite store that knows workflows and what they hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from broker.store import workflow_table
from broker.store.records import AuditEvent
from broker.store.registry_tables import append_audit
from broker.store.sqlite_part import SqlitePart
from broker.workflow_records import Marks, Workflow, WorkflowLabel, WorkflowName


class SqliteWorkflows(SqlitePart):
    """Workflows, as `Store` promises them."""

    async def open_workflow(self, workflow: Workflow, audit: AuditEvent) -> None:
        """Add a workflow."""

        def change(connection: sqlite3.Connection) -> None:
            workflow_table.open_workflow(connection, workflow)
            append_audit(connection, audit, self._options)

        await self._database.write(change)

    async def find_workflow(self, tenant: str, workflow_id: str) -> Workflow | None:
        """Read a workflow of a tenant."""
        return await self._database.read(
            lambda connection: workflow_table.find_workflow(connection, tenant, workflow_id)
        )

    async def workflow_labels(self, name: WorkflowName) -> Sequence[WorkflowLabel]:
        """Read the labels of a workflow."""
        return await self._database.read(lambda connection: workflow_table.select_labels(connection, name))

    async def workflow_marks(self, ended_before: datetime) -> Marks:
        """Remove what ended long ago, and read the rest."""

        def change(connection: sqlite3.Connection) -> Marks:
            workflow_table.remove_ended(connection, ended_before)
            return workflow_table.select_marks(connection)

        return await self._database.write(change)
