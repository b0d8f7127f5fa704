"""`toolcrib.v1.Workflows`: orchestrators open workflows for the agents of their tenant."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from broker.api.door import Door
from broker.api.messages import timestamp
from broker.errors import Refused
from broker.labels import UNTRUSTED
from broker.model import Caller, Role
from broker.store.protocol import Store
from broker.store.records import AuditEvent
from broker.workflow_records import Workflow, WorkflowLabel, WorkflowName
from broker.workflows import WorkflowBook, expiry
from toolcrib.v1 import workflows_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation

SERVICE = workflows_pb2.DESCRIPTOR.services_by_name["Workflows"]

MAX_DESCRIPTION = 200
_AGENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class WorkflowsService:
    """The door for what gives agents their tasks."""

    def __init__(
        self,
        door: Door,
        workflows: WorkflowBook,
        store: Store,
        environments: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._workflows = workflows
        self._store = store
        self._environments = environments
        self._clock = clock
        base = f"/{SERVICE.full_name}/"
        self.OpenWorkflow = door.guard(base + "OpenWorkflow", self._open)
        self.GetWorkflow = door.guard(base + "GetWorkflow", self._get)

    async def _open(
        self, request: workflows_pb2.OpenWorkflowRequest, caller: Caller
    ) -> workflows_pb2.OpenWorkflowResponse:
        most, now = self._workflows.settings.max_ttl_seconds, self._clock()
        environment = request.environment or self._environments[0]
        _check([*self._find_wrong(request.agent, environment), *_find_wrong(request, most)])
        wanted = Workflow(
            caller.tenant,
            environment,
            "",
            request.agent,
            request.description,
            caller.identity,
            now,
            expiry(now, request.ttl_seconds, most),
        )
        handle, workflow = await self._workflows.open(self._store, wanted, _opened_event)
        return workflows_pb2.OpenWorkflowResponse(
            handle=handle, workflow_id=workflow.workflow_id, expires=timestamp(workflow.expires)
        )

    async def _get(
        self, request: workflows_pb2.GetWorkflowRequest, caller: Caller
    ) -> workflows_pb2.GetWorkflowResponse:
        if request.workflow_id:
            found = await self._store.find_workflow(caller.tenant, request.workflow_id)
            if found is None or (caller.role is Role.AGENT and found.agent != caller.name):
                raise Refused(Reason.REASON_WORKFLOW_INVALID, "no such workflow that you may see")
            return workflows_pb2.GetWorkflowResponse(workflow=await self._show(found))
        agent = request.agent or (caller.name if caller.role is Role.AGENT else "")
        if caller.role is Role.AGENT and agent != caller.name:
            raise Refused(Reason.REASON_WORKFLOW_INVALID, "no such workflow that you may see")
        environment = request.environment or self._environments[0]
        _check(self._find_wrong(agent, environment))
        name = WorkflowName(caller.tenant, environment, agent)
        message = workflows_pb2.Workflow(tenant=name.tenant, agent=agent, environment=environment)
        return workflows_pb2.GetWorkflowResponse(workflow=_with_labels(message, self._workflows.labels(name)))

    async def _show(self, workflow: Workflow) -> workflows_pb2.Workflow:
        """Show a workflow: what counts for it now, or, after its end, what is on record."""
        message = workflows_pb2.Workflow(
            id=workflow.workflow_id,
            tenant=workflow.tenant,
            agent=workflow.agent,
            environment=workflow.environment,
            description=workflow.description,
            opened_by=workflow.opened_by,
            opened=timestamp(workflow.opened),
            expires=timestamp(workflow.expires),
        )
        if self._workflows.find(workflow.name) is not None:
            return _with_labels(message, self._workflows.labels(workflow.name))
        return _with_labels(message, await self._store.workflow_labels(workflow.name))

    def _find_wrong(self, agent: str, environment: str) -> list[Violation]:
        found = []
        if not _AGENT.fullmatch(agent):
            found.append(Violation("agent", f"must be the name of an agent: {_AGENT.pattern}"))
        if environment not in self._environments:
            found.append(Violation("environment", f"must be one of {', '.join(self._environments)}"))
        return found


def _find_wrong(request: workflows_pb2.OpenWorkflowRequest, most: int) -> list[Violation]:
    found = []
    if request.ttl_seconds > most:
        found.append(Violation("ttl_seconds", f"must be at most {most}: workflows.max_ttl_seconds"))
    text = request.description
    if len(text) > MAX_DESCRIPTION or not (text.isprintable()):
        found.append(Violation("description", f"must be at most {MAX_DESCRIPTION} printable characters"))
    return found


def _check(violations: Sequence[Violation]) -> None:
    if violations:
        fields = ", ".join(violation.field for violation in violations)
        raise Refused(
            Reason.REASON_REQUEST_INVALID, f"the request cannot be taken: {fields}", violations=violations
        )


def _opened_event(workflow: Workflow) -> AuditEvent:
    details = {
        "workflow": workflow.workflow_id,
        "agent": workflow.agent,
        "expires": workflow.expires.isoformat(),
    }
    return AuditEvent(
        "workflow.opened",
        workflow.tenant,
        workflow.environment,
        workflow.opened,
        actor=workflow.opened_by,
        details=details,
    )


def _with_labels(message: workflows_pb2.Workflow, labels: Sequence[WorkflowLabel]) -> workflows_pb2.Workflow:
    for label in labels:
        message.labels.add(label=label.label, call_id=label.call_id, since=timestamp(label.since))
    message.holds_untrusted = any(label.label == UNTRUSTED for label in labels)
    return message
