"""The way out of one call, as the path of a call holds it, and what may go wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sandboxes.child import Child
from sandboxes.egress.addresses import CONTAINER_DIR, TargetAddress
from sandboxes.egress.records import MAX_KEPT, ConnectionRecord, Outcome, keep_connections
from sandboxes.nests import Nest
from toolcrib.handler.v1 import handler_pb2


class EgressError(Exception):
    """Base of what this package raises toward the path of a call."""


class EgressUnavailable(EgressError):
    """There is no way out now, and nothing was opened. Retry."""


class TargetUnknown(EgressError):
    """A call asked for a target that the operator did not declare. Nothing was opened."""


class EgressLost(EgressError):
    """The process behind a call's way out died under it."""


class EgressNotClosed(EgressError):
    """The sockets of a call could not be removed; its connections are ended."""


class Egress:
    """The way out of one call.

    Attributes:
        nest: Where its sockets are: what is mounted, read-only, at /run/toolcrib in the sandbox.
        lost: Set when a child died that carried the call: what it may reach is not reachable any more.
        connections: What the call connected to and asked; known once it is closed.
        uncounted: How many there were beyond those that are kept.
        children: The processes that carry it.
    """

    def __init__(
        self,
        call_id: str,
        nest: Nest,
        targets: tuple[TargetAddress, ...],
        origins: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.call_id = call_id
        self.nest = nest
        self.lost = asyncio.Event()
        self.connections: tuple[ConnectionRecord, ...] = ()
        self.uncounted = 0
        self._targets = targets
        self._origins = origins or {}
        self._told: list[ConnectionRecord] = []
        self._losses: list[ConnectionRecord] = []
        self.children: tuple[Child, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether a child that carries the call has ended, as the kernel knows it: `lost` may come later."""
        return self.lost.is_set() or any(child.has_ended for child in self.children)

    @property
    def socket_dir(self) -> Path:
        """The host's folder of its sockets."""
        return self.nest.folder

    @property
    def target_names(self) -> list[str]:
        """The targets that the call may reach."""
        return [target.name for target in self._targets]

    def handler_targets(self) -> dict[str, handler_pb2.Target]:
        """Describe the targets as the handler sees them in its container."""
        return {
            target.name: handler_pb2.Target(
                socket_dir=f"{CONTAINER_DIR}/{target.name}",
                socket_path=target.socket_path,
                settings=dict(target.settings),
                origins=self._origins.get(target.name, ()),
            )
            for target in self._targets
        }

    def note(self, *records: ConnectionRecord) -> None:
        """Take records, up to a number; a child that tells without end fills no memory.

        That a child died is not its own to say, and a name that is no target of the call's is none. More are
        taken than are kept: one child hides no other's.
        """
        said = [record for record in records if record.outcome is not Outcome.LOST]
        room = max(0, 4 * MAX_KEPT - len(self._told))
        known = {"", *self.target_names}
        self._told.extend(one if one.target in known else replace(one, target="") for one in said[:room])
        self.uncounted += len(records) - len(said[:room])

    def note_loss(self, record: ConnectionRecord) -> None:
        """Take it that a child died; that is on record, whatever the child had told before."""
        self._losses.append(record)

    def conclude(self) -> None:
        """Settle what is on record: nothing more comes."""
        self.connections, beyond = keep_connections([*self._told, *self._losses])
        self.uncounted += beyond
        self._told.clear()
