"""Both sides of each child token and its lease, until they agree.

A child token is known by its accessor. It is forgotten when both sides say that it and its lease were made
and ended, with the same label; what is left at the end is open on both sides, or a difference.

Two things are no difference although only Vault's log has them: a child of a call that still runs, and one
whose mint failed half way, was given up and ended, at the time of a call that failed and names no lease of
that role.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.reconciliation.child import CLOCKS, Child, VaultLease
from broker.reconciliation.children import find_other_use
from broker.reconciliation.differences import Difference, Kind, Report
from broker.reconciliation.our_record import CallEnded, CallOpened, LeaseEnded, OurHappening, started
from broker.reconciliation.vault_log import IN_FLIGHT, Happening, What

LONGEST_CALL = timedelta(hours=1)
"""No child token lives longer: what began earlier than this before a window has nothing to do with it."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is to be compared, by the time when it was made."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime | None) -> bool:
        """Tell whether something made then is to be compared; what has no time always is."""
        return at is None or ((self.since is None or at >= self.since) and self.reaches(at))

    def reaches(self, at: datetime) -> bool:
        """Tell whether the window does not end before."""
        return self.until is None or at <= self.until

    def is_past(self, at: datetime | None) -> bool:
        """Tell whether something made then cannot reach into the window."""
        return at is not None and self.since is not None and at < _shift(self.since, -LONGEST_CALL)

    def narrowed(self) -> Window:
        """The window that is certain where the other side's clock is not known exactly."""
        return Window(self.since and _shift(self.since, CLOCKS), self.until and _shift(self.until, -CLOCKS))


def _shift(moment: datetime, by: timedelta) -> datetime:
    """Move a moment; one at the edge of what a datetime can say stays where it is."""
    try:
        return moment + by
    except OverflowError:
        return moment


@dataclass(slots=True)
class Count:
    """What was no difference: leases that agree, are open, or were given up before they were used."""

    agree: int = 0
    open: int = 0
    given_up: int = 0


class Ledger:
    """Takes what both sides say, in any order between them."""

    def __init__(self, report: Report, window: Window) -> None:
        self._report, self._window = report, window
        self._running: dict[str, Mapping[str, str]] = {}
        self._failed: dict[str, CallEnded] = {}
        self._children: dict[str, Child] = {}
        self._made_for: defaultdict[str, set[str]] = defaultdict(set)
        self._owners: dict[str, str] = {}
        self.count = Count()

    def __len__(self) -> int:
        """How much is held."""
        return len(self._children) + len(self._running) + len(self._failed)

    # --- our side ----------------------------------------------------------------------------------------
    def take_ours(self, said: OurHappening) -> None:
        """Take what our record says."""
        if isinstance(said, CallOpened):
            self._running[said.label["call_id"]] = said.label
        elif isinstance(said, CallEnded):
            self._end_call(said)
        elif said.accessor in self._children or said.call_id in self._running:
            self._end_lease(said)

    def _end_call(self, call: CallEnded) -> None:
        label = self._running.pop(call.call_id, None)
        if label is None or self._window.is_past(started(call.call_id)):
            return
        for lease in call.leases:
            child = self._child(lease.accessor)
            child.ours, child.label, child.record = lease, label, call.sequence
            self._settle(child)
        if call.failed or call.adopted:
            self._failed[call.call_id] = call = replace(call, label=label)
            for accessor in tuple(self._made_for.get(call.call_id, ())):
                self._children[accessor].failed = call
                self._settle(self._children[accessor])

    def _end_lease(self, said: LeaseEnded) -> None:
        child = self._child(said.accessor)
        child.ended = said
        self._settle(child)

    # --- Vault's side ------------------------------------------------------------------------------------
    def take_vaults(self, said: Happening) -> None:
        """Take what Vault's log says; the end of what is not known is somebody else's, or an end again."""
        if self._window.is_past(said.at):
            return
        if said.what is What.MADE:
            child = self._take_making(said)
        elif said.what is What.USED:
            child = self._take_use(said)
        elif said.what is What.LEASED:
            child = self._take_lease(said)
        else:
            known = self._children.get(self._owners.get(said.lease_id, said.accessor))
            if known is None:
                return
            known.note_end(said)
            child = known
        self._settle(child)

    def _take_making(self, said: Happening) -> Child:
        child, call_id = self._child(said.accessor), said.label.get("call_id", "")
        if child.made is not None:  # Vault gives an accessor once: the second line was put in
            text = f"a token with the accessor of the one that was made on line {child.made.line}"
            self._report(replace(child.differs(Kind.CHANGED, text), line=said.line))
            return child
        child.made, child.failed = said, self._failed.get(call_id)
        self._made_for[call_id].add(said.accessor)
        return child

    def _take_use(self, said: Happening) -> Child:
        child = self._child(said.accessor)
        child.used = child.used or said
        if wrong := find_other_use(said):
            self._report(replace(child.differs(Kind.OTHER_USE, wrong), line=said.line))
        made = child.made
        if made and made.policies and (made.label, made.policies) != (said.label, said.policies):
            text = f"the token's label or policies are others than on line {made.line}, where it was made"
            self._report(replace(child.differs(Kind.CHANGED, text), line=said.line))
        return child

    def _take_lease(self, said: Happening) -> Child:
        child = self._child(said.accessor)
        child.leases[said.lease_id] = VaultLease(said.line)
        self._owners[said.lease_id] = said.accessor
        return child

    # --- both --------------------------------------------------------------------------------------------
    def _child(self, accessor: str) -> Child:
        return self._children.setdefault(accessor, Child(accessor))

    def _settle(self, child: Child) -> None:
        """Forget a child of which all is known."""
        if child.made is None or not child.is_ended_at_vault:
            return
        if child.ours is not None and child.ended is not None:
            found = list(child.compare())
            for difference in found:
                self._report(difference)
            self.count.agree += not found
        elif child.ours is None and child.is_given_up:
            self.count.given_up += 1
        else:
            return
        self._forget(child, child.made.label.get("call_id", ""))

    def _forget(self, child: Child, call_id: str) -> None:
        del self._children[child.accessor]
        for lease_id in child.leases:
            self._owners.pop(lease_id, None)
        self._made_for[call_id].discard(child.accessor)
        if not self._made_for[call_id]:
            del self._made_for[call_id]

    def prune(self, at: datetime) -> None:
        """Forget failed calls for which nothing can be made any more, when Vault's log has come to `at`."""
        while self._failed:
            first = next(iter(self._failed.values()))
            if first.at + 2 * CLOCKS >= at:
                return
            del self._failed[first.call_id]

    # --- the end -----------------------------------------------------------------------------------------
    def finish(self, head: int, log_end: datetime | None) -> None:
        """Report what does not agree.

        Args:
            head: Records after this one were read after the log: what they name need not be in it.
            log_end: Latest time in Vault's log; None for an empty one.
        """
        for child in self._children.values():
            found = list(self._explain(child, head, log_end))
            for difference in found:
                self._report(difference)
            self.count.open += not found

    def _explain(self, child: Child, head: int, log_end: datetime | None) -> Iterator[Difference]:
        if child.ours is None:
            yield from self._explain_unrecorded(child)
        elif child.made is None:
            began = started(child.call_id)
            if child.record <= head and self._window.narrowed().holds(began):
                text = (
                    f"our record has a lease of {child.ours.engine}/{child.ours.role}, and the log no token"
                )
                yield child.differs(Kind.NOT_IN_VAULTS_LOG, f"{text} with this accessor")
        else:
            found = list(child.compare())
            yield from found
            if all(one.kind is not Kind.NOT_IN_VAULTS_LOG for one in found):
                yield from self._explain_end(child, head, log_end)

    def _explain_unrecorded(self, child: Child) -> Iterator[Difference]:
        seen = child.made or child.used
        if not (seen or child.leases) or not self._window.holds(seen.at if seen else None):
            return
        if child.made is None or self._running.get(child.call_id) != child.made.label:
            yield child.explain_unrecorded()

    def _explain_end(self, child: Child, head: int, log_end: datetime | None) -> Iterator[Difference]:
        ended, is_ended = child.ended, child.is_ended_at_vault
        due = ended is not None and ended.sequence <= head and self._window.narrowed().reaches(ended.at)
        if ended is not None and due and not is_ended:
            text = "our record has its end as confirmed; the log lacks its revocation or look-up"
            yield replace(child.differs(Kind.END_NOT_IN_VAULTS_LOG, text), record=ended.sequence)
        late = child.gone is not None and log_end is not None and log_end - child.gone > IN_FLIGHT
        if ended is None and is_ended and late:
            text = "Vault ended it and said so; our record still has it as owed"
            yield child.differs(Kind.END_NOT_IN_OUR_RECORD, text)
