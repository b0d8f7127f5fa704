"""Workflows as they are recorded, and what calls leave on them.

A workflow is one task of one agent in one environment of a tenant. What an agent calls without a handle is a
workflow too: the agent itself, with the empty id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple


class WorkflowName(NamedTuple):
    """Which workflow; `workflow_id` is empty for an agent's calls without a handle."""

    tenant: str
    environment: str
    agent: str
    workflow_id: str = ""

    @property
    def agent_itself(self) -> WorkflowName:
        """What the same agent holds that calls without a handle."""
        return self._replace(workflow_id="")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that was opened.

    Attributes:
        description: For people: what the task is. Goes when the tenant is erased.
        opened_by: Identity of who opened it.
        expires: When its handle ends, and what it holds with it.
    """

    tenant: str
    environment: str
    workflow_id: str
    agent: str
    description: str
    opened_by: str
    opened: datetime
    expires: datetime

    @property
    def name(self) -> WorkflowName:
        """Which one it is."""
        return WorkflowName(self.tenant, self.environment, self.agent, self.workflow_id)


@dataclass(frozen=True, slots=True)
class WorkflowLabel:
    """Where content came from that a workflow holds.

    Attributes:
        call_id: The call that brought it first, at `since`.
        last: When it came last; not written down at every call.
        last_bare: When it came last by a call without a handle; None where it never did.
    """

    label: str
    call_id: str
    since: datetime
    last: datetime
    last_bare: datetime | None = None


@dataclass(frozen=True, slots=True)
class Imprint:
    """What a call leaves on its workflow; durable with the change that lets the content out.

    Its labels go to the agent itself too: whoever drops the handle sheds nothing.

    Attributes:
        trusted: HMACs of destinations that a trusted result named.
        forget_before: Trusted destinations of the same workflow that are older may be removed.
    """

    workflow: WorkflowName
    call_id: str
    at: datetime
    forget_before: datetime
    labels: tuple[str, ...] = ()
    trusted: tuple[bytes, ...] = ()

    def spread(self) -> Sequence[tuple[WorkflowName, WorkflowLabel]]:
        """List the labels with the workflows that hold them from now on."""
        bare = None if self.workflow.workflow_id else self.at
        made = [WorkflowLabel(label, self.call_id, self.at, self.at, bare) for label in self.labels]
        names = dict.fromkeys((self.workflow, self.workflow.agent_itself))
        return [(name, label) for name in names for label in made]


@dataclass(frozen=True, slots=True)
class Marks:
    """What is on record of all workflows that may still count.

    Attributes:
        trusted: Workflow, HMAC, and when it was named last.
    """

    workflows: Sequence[Workflow] = ()
    labels: Sequence[tuple[WorkflowName, WorkflowLabel]] = ()
    trusted: Sequence[tuple[WorkflowName, bytes, datetime]] = ()


def merge_labels(found: WorkflowLabel | None, new: WorkflowLabel) -> WorkflowLabel:
    """Take over when a label came last; what brought it first stays."""
    if found is None:
        return new
    bare = max((one for one in (found.last_bare, new.last_bare) if one is not None), default=None)
    return replace(found, last=max(found.last, new.last), last_bare=bare)
