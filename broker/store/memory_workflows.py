"""The part of the memory store that knows workflows and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.store.memory_part import MemoryPart
from broker.store.records import AuditEvent, StoreError
from broker.workflow_records import Marks, Workflow, WorkflowLabel, WorkflowName


class MemoryWorkflows(MemoryPart):
    """Workflows, as `Store` promises them."""

    async def open_workflow(self, workflow: Workflow, audit: AuditEvent) -> None:
        """Add a workflow."""
        await self._begin_write()
        if workflow.workflow_id in self.state.workflows:
            raise StoreError(f"workflow {workflow.workflow_id}: another one has this id")
        self._append(audit)
        self.state.workflows[workflow.workflow_id] = workflow

    async def find_workflow(self, tenant: str, workflow_id: str) -> Workflow | None:
        """Read a workflow of a tenant."""
        await self._begin_read()
        found = self.state.workflows.get(workflow_id)
        return found if found and found.tenant == tenant else None

    async def workflow_labels(self, name: WorkflowName) -> Sequence[WorkflowLabel]:
        """Read the labels of a workflow."""
        await self._begin_read()
        found = [label for (holder, _), label in self.state.labels.items() if holder == name]
        return sorted(found, key=lambda label: (label.since, label.label))

    async def workflow_marks(self, ended_before: datetime) -> Marks:
        """Remove what ended long ago, and read the rest."""
        await self._begin_write()
        self._remove_ended(ended_before)
        state = self.state
        opened = sorted(state.workflows.values(), key=lambda one: (one.opened, one.workflow_id))
        labels = [(name, label) for (name, _), label in state.labels.items()]
        return Marks(opened, labels, [(*key, at) for key, at in state.trusted.items()])

    def _remove_ended(self, before: datetime) -> None:
        state = self.state
        ended = {one.workflow_id for one in state.workflows.values() if one.expires < before}
        state.workflows = {key: one for key, one in state.workflows.items() if key not in ended}
        state.labels = {
            key: label
            for key, label in state.labels.items()
            if key[0].workflow_id not in ended and (key[0].workflow_id or label.last >= before)
        }
        state.trusted = {
            key: at for key, at in state.trusted.items() if key[0].workflow_id not in ended and at >= before
        }
