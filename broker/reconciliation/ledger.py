"""Both sides of each child token and its lease, until they agree.

A child token is known by its accessor. It is forgotten when both sides say that it and its lease were made and
ended, with the same label; what is left at the end is open on both sides, or a difference.

Two things are no difference although only Vault's log has them: a child of a call that still runs, and one
whose mint failed half way, was given up and ended, at the time of a call that failed and names no lease of
that role.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from broker.reconciliation.children import find_other_path, name_role
from broker.reconciliation.differences import Difference, Kind, Report
from broker.reconciliation.our_record import CallEnded, CallOpened, LeaseEnded, OurLease, started
from broker.reconciliation.vault_log import IN_FLIGHT, Happening, What
from credentials.lease import NO_LEASE, UNKNOWN_LEASE

LONGEST_CALL = timedelta(hours=1)
"""No child token lives longer: what began earlier than this before a window has nothing to do with it."""
CLOCKS = timedelta(seconds=60)
"""By how much the clocks of Vault and the broker may differ."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is to be compared, by the time when it was made."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime | None) -> bool:
        """Tell whether something made then is to be compared; what has no time always is."""
        if at is None:
            return True
        after = self.since is None or at >= self.since
        return after and (self.until is None or at <= self.until)

    def is_past(self, at: datetime | None) -> bool:
        """Tell whether something made then cannot reach into the window."""
        return at is not None and self.since is not None and at < self.since - LONGEST_CALL

    def narrowed(self) -> Window:
        """The window that is left where the other side's clock is not known exactly."""
        since, until = self.since, self.until
        return Window(since and since + CLOCKS, until and until - CLOCKS)


@dataclass(slots=True)
class _VaultLease:
    line: int
    revoked: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Child:
    """One child token; what a side has not said is None or empty."""

    ours: OurLease | None = None
    label: Mapping[str, str] = field(default_factory=dict)
    record: int = 0
    ended: int = 0
    made: Happening | None = None
    used: Happening | None = None
    leases: dict[str, _VaultLease] = field(default_factory=dict)
    revoked: bool = False
    gone: datetime | None = None
    given_up: bool = False

    @property
    def is_ended_at_vault(self) -> bool:
        """Vault's log shows the end of the child, and of the lease where it has an id of Vault's."""
        if not self.revoked or self.gone is None:
            return False
        if self.ours is None or _is_own(self.ours.lease_id):
            return True
        lease = self.leases.get(self.ours.lease_id)
        return lease is not None and lease.revoked and lease.gone


@dataclass(slots=True)
class Count:
    """What was found: leases that agree, are still open, or were given up before they were used."""

    agree: int = 0
    open: int = 0
    given_up: int = 0


class Ledger:
    """Takes what both sides say, in any order between them.

    Attributes:
        count: Of what was no difference.
    """

    def __init__(self, report: Report, window: Window) -> None:
        self._report, self._window = report, window
        self._running: dict[str, Mapping[str, str]] = {}
        self._failed: dict[str, CallEnded] = {}
        self._children: dict[str, _Child] = {}
        self._owners: dict[str, str] = {}
        self.count = Count()

    def __len__(self) -> int:
        """How much is held."""
        return len(self._children) + len(self._running) + len(self._failed)

    # --- our side ----------------------------------------------------------------------------------------
    def take_ours(self, said: CallOpened | CallEnded | LeaseEnded) -> None:
        """Take what our record says."""
        if isinstance(said, CallOpened):
            self._running[said.label["call_id"]] = said.label
        elif isinstance(said, CallEnded):
            self._end_call(said)
        elif said.accessor in self._children or said.call_id in self._running:
            self._child(said.accessor).ended = said.sequence
            self._settle(said.accessor)

    def _end_call(self, call: CallEnded) -> None:
        label = self._running.pop(call.call_id, None)
        if label is None or self._window.is_past(started(call.call_id)):
            return
        for lease in call.leases:
            child = self._child(lease.accessor)
            child.ours, child.label, child.record = lease, label, call.sequence
            self._settle(lease.accessor)
        if call.failed or call.adopted:
            self._failed[call.call_id] = call
            self._give_up_children(call)

    def _give_up_children(self, call: CallEnded) -> None:
        for accessor, child in list(self._children.items()):
            if child.made is not None and child.made.label.get("call_id") == call.call_id:
                self._settle(accessor)

    # --- Vault's side ------------------------------------------------------------------------------------
    def take_vaults(self, said: Happening) -> None:
        """Take what Vault's log says."""
        if self._window.is_past(said.at):
            return
        if said.what is What.MADE:
            self._child(said.accessor).made = said
        elif said.what is What.USED:
            self._take_use(said)
        elif said.what is What.LEASED:
            self._take_lease(said)
        elif said.lease_id:
            said = self._end_lease(said)
        elif said.accessor in self._children:
            child = self._children[said.accessor]
            child.revoked = child.revoked or said.what is What.REVOKED
            child.gone = child.gone or (said.at if said.what is What.GONE else None)
        self._settle(said.accessor)

    def _take_use(self, said: Happening) -> None:
        child = self._child(said.accessor)
        child.used = child.used or said
        about = Difference(
            Kind.OTHER_PATH, "", said.label.get("call_id", ""), accessor=said.accessor, line=said.line
        )
        if wrong := find_other_path(said):
            self._report(replace(about, detail=wrong))
        if child.made is not None and (child.made.label, child.made.policies) != (said.label, said.policies):
            text = f"label or policies are others than when the token was made, on line {child.made.line}"
            self._report(replace(about, kind=Kind.CHANGED, detail=text))

    def _take_lease(self, said: Happening) -> None:
        self._child(said.accessor).leases[said.lease_id] = _VaultLease(said.line)
        self._owners[said.lease_id] = said.accessor

    def _end_lease(self, said: Happening) -> Happening:
        """Note the end of a lease; returns it with the child that the lease belongs to."""
        owner = self._owners.get(said.lease_id, "")
        if owner:
            lease = self._children[owner].leases[said.lease_id]
            lease.revoked = lease.revoked or said.what is What.LEASE_REVOKED
            lease.gone = lease.gone or said.what is What.LEASE_GONE
        return replace(said, accessor=owner)

    # --- both --------------------------------------------------------------------------------------------
    def _child(self, accessor: str) -> _Child:
        return self._children.setdefault(accessor, _Child())

    def _settle(self, accessor: str) -> None:
        """Forget a child of which all is known."""
        child = self._children.get(accessor)
        if child is None or child.made is None or not child.is_ended_at_vault:
            return
        if child.ours is not None and child.ended:
            found = list(_compare(accessor, child))
            for difference in found:
                self._report(difference)
            self.count.agree += not found
        elif child.ours is None and self._is_given_up(child):
            self.count.given_up += 1
        else:
            return
        self._forget(accessor)

    def _forget(self, accessor: str) -> None:
        for lease_id in self._children.pop(accessor).leases:
            self._owners.pop(lease_id, None)

    def _is_given_up(self, child: _Child) -> bool:
        """Tell whether a failed mint explains a child: at that time, for that call, and no lease of its role."""
        assert child.made is not None, "only what was made can be given up"
        call = self._failed.get(child.made.label.get("call_id", ""))
        if call is None or child.made.at > call.at + CLOCKS:
            return False
        roles = {name_role(policy) for policy in child.made.policies}
        return not any((lease.engine, lease.role) in roles for lease in call.leases)

    def prune(self, at: datetime) -> None:
        """Forget failed calls for which nothing can be made any more; both sides have come to `at`."""
        old = [call_id for call_id, call in self._failed.items() if call.at + 2 * CLOCKS < at]
        for call_id in old:
            del self._failed[call_id]

    # --- the end -----------------------------------------------------------------------------------------
    def finish(self, head: int, log_end: datetime | None) -> None:
        """Report what does not agree.

        Args:
            head: Records after this one were read after the log: what they name need not be in it.
            log_end: Latest time in Vault's log; None for an empty one.
        """
        for accessor, child in self._children.items():
            found = list(self._explain(accessor, child, head, log_end))
            for difference in found:
                self._report(difference)
            self.count.open += not found

    def _explain(
        self, accessor: str, child: _Child, head: int, log_end: datetime | None
    ) -> Iterable[Difference]:
        if child.ours is None:
            return self._explain_unrecorded(accessor, child)
        if child.made is None:
            return self._explain_unmade(accessor, child, head)
        return (*_compare(accessor, child), *_explain_end(accessor, child, head, log_end))

    def _explain_unrecorded(self, accessor: str, child: _Child) -> Iterator[Difference]:
        seen = child.made or child.used
        if seen is None or not self._window.holds(seen.at):
            return
        call_id = seen.label.get("call_id", "")
        if child.made is not None and self._running.get(call_id) == seen.label:
            return  # it runs, and its end will name its leases
        leases = ", ".join(child.leases) or "no lease"
        what = "made" if child.made else "used, and its making is not in the log"
        text = f"a token for {', '.join(seen.policies)} was {what}; {leases}. {self._hint(call_id)}"
        yield Difference(
            Kind.NOT_IN_OUR_RECORD, text, call_id, next(iter(child.leases), ""), accessor, seen.line
        )

    def _hint(self, call_id: str) -> str:
        call = self._failed.get(call_id)
        if call is None:
            return "Whoever made it had the broker's session: see that it is gone, and rotate the login"
        if call.adopted:
            return "The broker was killed in this call and may have made it just before; see that it is gone"
        return "The call failed: see that the token is gone"

    def _explain_unmade(self, accessor: str, child: _Child, head: int) -> Iterator[Difference]:
        assert child.ours is not None, "our record names it"
        if child.record > head or not self._window.narrowed().holds(started(child.label["call_id"])):
            return
        text = f"our record has a lease of {child.ours.engine} role {child.ours.role}, the log no such token"
        yield _about(Kind.NOT_IN_VAULTS_LOG, text, accessor, child)


def _compare(accessor: str, child: _Child) -> Iterator[Difference]:
    """Compare what both sides say of a child that both know."""
    assert child.ours is not None and child.made is not None, "both sides know it"
    label, made = child.label, child.made
    for name, value in label.items():
        if made.label.get(name) != value:
            text = f"{name} is {made.label.get(name, '')!r} at Vault and {value!r} in our record"
            yield _about(Kind.OTHER_LABEL, text, accessor, child)
    if (child.ours.engine, child.ours.role) not in {name_role(policy) for policy in made.policies}:
        text = (
            f"its policy is {', '.join(made.policies)}, our record has {child.ours.engine}/{child.ours.role}"
        )
        yield _about(Kind.OTHER_LABEL, text, accessor, child)
    yield from _compare_leases(accessor, child)


def _compare_leases(accessor: str, child: _Child) -> Iterator[Difference]:
    assert child.ours is not None, "our record names it"
    ours = child.ours.lease_id
    if not _is_own(ours) and ours not in child.leases:
        yield _about(
            Kind.NOT_IN_VAULTS_LOG, "the log has the token, and not this lease of it", accessor, child
        )
    if ours.startswith(UNKNOWN_LEASE):
        return  # Vault's answer was lost: the lease is ended with its token
    for lease_id, lease in child.leases.items():
        if lease_id != ours:
            text = "the token got a lease that our record does not name"
            about = _about(Kind.NOT_IN_OUR_RECORD, text, accessor, child)
            yield replace(about, lease_id=lease_id, line=lease.line)


def _explain_end(accessor: str, child: _Child, head: int, log_end: datetime | None) -> Iterator[Difference]:
    if child.ended and child.ended <= head and not child.is_ended_at_vault:
        text = "our record has its end as confirmed; the log lacks the revocation or the look-up after it"
        yield replace(_about(Kind.END_NOT_IN_VAULTS_LOG, text, accessor, child), record=child.ended)
    late = child.gone is not None and log_end is not None and log_end - child.gone > IN_FLIGHT
    if child.is_ended_at_vault and not child.ended and late:
        text = "Vault ended it and said so; our record still has it as owed"
        yield _about(Kind.END_NOT_IN_OUR_RECORD, text, accessor, child)


def _about(kind: Kind, detail: str, accessor: str, child: _Child) -> Difference:
    line = child.made.line if child.made else 0
    lease_id = child.ours.lease_id if child.ours else ""
    return Difference(kind, detail, child.label.get("call_id", ""), lease_id, accessor, line, child.record)


def _is_own(lease_id: str) -> bool:
    return lease_id.startswith((NO_LEASE, UNKNOWN_LEASE))
