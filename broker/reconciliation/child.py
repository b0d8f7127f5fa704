"""One child token with its lease: what each side says of it, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from broker.reconciliation.children import name_role
from broker.reconciliation.differences import Difference, Kind
from broker.reconciliation.our_record import CallEnded, LeaseEnded, OurLease
from broker.reconciliation.vault_log import Happening, What
from credentials.lease import NO_LEASE, UNKNOWN_LEASE

CLOCKS = timedelta(seconds=60)
"""By how much the clocks of Vault and the broker may differ, where times have to be compared at all."""


@dataclass(slots=True)
class VaultLease:
    """A lease that Vault's log has, with the line where it was made."""

    line: int
    revoked: bool = False
    gone: bool = False


@dataclass(slots=True)
class Child:
    """One child token; what a side has not said is None or empty.

    Attributes:
        ours: What our record names for it, with `label` and `record`, the sequence that says so.
        ended: Our record's word that its end was confirmed.
        failed: The call that it was made for, where that ended without an answer.
        gone: When Vault said that it does not know it any more.
    """

    accessor: str
    ours: OurLease | None = None
    label: Mapping[str, str] = field(default_factory=dict)
    record: int = 0
    ended: LeaseEnded | None = None
    failed: CallEnded | None = None
    made: Happening | None = None
    used: Happening | None = None
    leases: dict[str, VaultLease] = field(default_factory=dict)
    revoked: bool = False
    gone: datetime | None = None

    @property
    def call_id(self) -> str:
        """The call that it was made for, by our word, else by Vault's."""
        seen = self.made or self.used
        return self.label.get("call_id", "") or (seen.label.get("call_id", "") if seen else "")

    @property
    def is_ended_at_vault(self) -> bool:
        """Vault's log shows the end of the child, and of the lease where it has an id of Vault's."""
        if not self.revoked or self.gone is None:
            return False
        if self.ours is None or _is_own(self.ours.lease_id):
            return True
        lease = self.leases.get(self.ours.lease_id)
        return lease is not None and lease.revoked and lease.gone

    @property
    def is_given_up(self) -> bool:
        """A failed mint explains it: made for that call, at that time, and no lease of its role was kept."""
        call, made = self.failed, self.made
        if call is None or made is None or not call.may_have_given_up or made.at > call.at + CLOCKS:
            return False
        if made.label != call.label:
            return False
        roles = set(map(name_role, made.policies))
        return not any((lease.engine, lease.role) in roles for lease in call.leases)

    def note_end(self, said: Happening) -> None:
        """Take what Vault's log says of the end of the child, or of one of its leases."""
        lease = self.leases.get(said.lease_id)
        if lease is not None:
            lease.revoked = lease.revoked or said.what is What.LEASE_REVOKED
            lease.gone = lease.gone or said.what is What.LEASE_GONE
        else:
            self.revoked = self.revoked or said.what is What.REVOKED
            self.gone = self.gone or (said.at if said.what is What.GONE else None)

    def differs(self, kind: Kind, detail: str) -> Difference:
        """Make a difference about it."""
        seen = self.made or self.used or next(iter(self.leases.values()), None)
        lease_id = self.ours.lease_id if self.ours else next(iter(self.leases), "")
        return Difference(
            kind, detail, self.call_id, lease_id, self.accessor, seen.line if seen else 0, self.record
        )

    def compare(self) -> Iterator[Difference]:
        """Compare what both sides say of a child that both know."""
        assert self.ours is not None and self.made is not None, "both sides know it"
        made = self.made
        other = [
            f"{name} is {made.label.get(name, '')!r} at Vault and {value!r} in our record"
            for name, value in self.label.items()
            if made.label.get(name) != value
        ]
        if (self.ours.engine, self.ours.role) not in map(name_role, made.policies):
            role = f"{self.ours.engine}/{self.ours.role}"
            other.append(f"its policy is {', '.join(made.policies)}, our record has {role}")
        if other:
            yield self.differs(Kind.OTHER_LABEL, "; ".join(other))
        yield from self._compare_leases(self.ours.lease_id)

    def _compare_leases(self, ours: str) -> Iterator[Difference]:
        if not _is_own(ours) and ours not in self.leases:
            yield self.differs(Kind.NOT_IN_VAULTS_LOG, "the log has the token, and not this lease of it")
        if ours.startswith(UNKNOWN_LEASE):
            return  # Vault's answer was lost on the way: that lease ends with its token
        for lease_id, lease in self.leases.items():
            if lease_id != ours:
                text = "the token got a lease that our record does not name; see that it is gone"
                about = self.differs(Kind.NOT_IN_OUR_RECORD, text)
                yield replace(about, lease_id=lease_id, line=lease.line)

    def explain_unrecorded(self) -> Difference:
        """Say what Vault's log has and our record has not."""
        seen = self.made or self.used
        what = "was made" if self.made else "was used, and its making is not in the log"
        named = ", ".join(seen.policies) if seen else "a policy that no line shows"
        whose = named or "a policy that a wrapped answer hides"
        text = f"a token for {whose} {what}; it got {', '.join(self.leases) or 'no lease'}"
        return self.differs(Kind.NOT_IN_OUR_RECORD, f"{text}. {self._hint()}")

    def _hint(self) -> str:
        if self.failed is None:
            return "Whoever made it had the broker's session: see that it is gone, and rotate the login"
        if self.failed.adopted:
            return "The broker was killed in this call and may have made it just before; see that it is gone"
        return "The call failed; see that the token is gone"


def _is_own(lease_id: str) -> bool:
    return lease_id.startswith((NO_LEASE, UNKNOWN_LEASE))
