"""Stage 11, settle: the completion is durable before the answer leaves.

But for a read without key, lease and artefacts that brings no new label: nobody can be given anything of it
again, no secret can be in it, and that it may run is durable since its reservation. Its completion is written
behind the answer, as long as the store's last beat shows that nobody has taken over (a process that was
stopped and wakes must ask before it answers).
"""

from __future__ import annotations

from dataclasses import replace

from broker.model import Answer, Call, CallState
from broker.stages.reserve import runs_at_once
from broker.store.protocol import Store
from broker.trail import Trail
from broker.workflows import WorkflowBook


class Settler:
    """Commits what a call came to; its leases' ends are owed from here on."""

    def __init__(self, store: Store, workflows: WorkflowBook) -> None:
        self._store = store
        self._workflows = workflows

    async def __call__(self, answer: Answer, trail: Trail) -> None:
        """Record the answer, so that its key replays it from now on."""
        if trail.call is not None and not trail.resolves:
            trail.imprint = await self._workflows.result(trail.call, answer)
        is_held = trail.imprint is not None and bool(trail.imprint.labels)
        trail.behind = not answer.artefacts and not is_held and self._may_follow(trail.call)
        if not trail.behind:
            await trail.see_sandboxes_end()
        record = replace(
            trail.record(CallState.SUCCEEDED),
            result=answer.result,
            labels=answer.labels,
            artefacts=answer.artefacts,
        )
        trail.completion = record
        if trail.behind:
            # Of such a read only trusted destinations are new, and they may count before they are durable.
            self._workflows.trust(trail.imprint)
        else:
            await self._store.complete(record, trail.event("call.succeeded"), imprint=trail.imprint)
            self._workflows.note(trail.imprint)
        trail.settled = True

    def _may_follow(self, call: Call | None) -> bool:
        return call is not None and not call.key and runs_at_once(call) and self._store.is_tenured
