"""Who may call what: the grants in force as rows for a reviewer, each with how often it was used.

Rules:
1. One row for each agent and tool that a policy names. What a policy leaves open is "*"; beside such a row
   stands one for each agent that used the grant.
2. Forbids are rows like permits. Expired permits count as absent here as they do for a call.
3. Conditions are shown, not evaluated: a row says what may be allowed, never that a given call will be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from broker.model import BudgetLimit, GrantUse
from broker.policy.files import Policy

EVERY = "*"
"""What stands for an agent, or a tool, that a policy does not name."""


@dataclass(frozen=True, slots=True)
class Use:
    """How often something was used, and when last; None for never."""

    calls: int = 0
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """One policy, for one agent and one tool, or for `EVERY` one of them."""

    policy: Policy
    agent: str
    tool: str
    use: Use

    @property
    def decision(self) -> Literal["allow", "ask", "forbid"]:
        """What the policy does where its conditions hold; "ask": a person has to approve."""
        if self.policy.effect == "forbid":
            return "forbid"
        return "ask" if self.policy.terms.ask else "allow"


@dataclass(frozen=True, slots=True)
class Unused:
    """A grant that allowed no call for some time."""

    policy: Policy
    applied: datetime | None
    use: Use


def list_access(policies: Iterable[Policy], uses: Iterable[GrantUse], now: datetime) -> list[Access]:
    """List what the policies in force give to whom, by tool, then decision, grant and agent."""
    used = _by_grant(uses)
    rows = [
        Access(policy, agent, tool, _tally(used[policy.id], agent, tool))
        for policy in policies
        if policy.terms.expires is None or now < policy.terms.expires
        for agent in _agents(policy, used[policy.id])
        for tool in _names(policy.methods)
    ]
    return sorted(rows, key=lambda row: (row.tool, row.decision, row.policy.id, row.agent))


def select_agent(rows: Iterable[Access], agent: str) -> list[Access]:
    """Keep what is about an agent, by its name or as one of every."""
    return [row for row in rows if row.agent in (agent, EVERY)]


def select_tool(rows: Iterable[Access], tool: str) -> list[Access]:
    """Keep what is about a tool, by its name or as one of every."""
    return [row for row in rows if row.tool in (tool, EVERY)]


def list_unused(
    policies: Iterable[Policy],
    uses: Iterable[GrantUse],
    applied: Mapping[str, datetime | None],
    since: datetime,
) -> list[Unused]:
    """List permits, expired ones too, that allowed no call since then; by id.

    `applied` says since when each grant has its present form. A younger one than `since` is left out: it had
    less time to be used. One of unknown age is not.
    """
    used, rows = _by_grant(uses), []
    for policy in policies:
        use = _tally(used[policy.id], EVERY, EVERY)
        made = applied.get(policy.id)
        if policy.effect == "permit" and not _is_later(made, since) and not _is_later(use.last, since):
            rows.append(Unused(policy, made, use))
    return sorted(rows, key=lambda row: row.policy.id)


def describe_limit(limit: BudgetLimit) -> str:
    """Say a limit in words: "100 calls in 86400 s", "50000 minor units of EUR in 86400 s"."""
    kind, _, currency = limit.unit.partition(":")
    what = f"minor units of {currency}" if kind == "minor" else kind
    return f"{limit.limit} {what} in {limit.window_seconds} s"


def _is_later(moment: datetime | None, since: datetime) -> bool:
    return moment is not None and moment > since


def _names(named: frozenset[str] | None) -> Sequence[str]:
    return (EVERY,) if named is None else sorted(named)


def _by_grant(uses: Iterable[GrantUse]) -> Mapping[str, list[GrantUse]]:
    found: defaultdict[str, list[GrantUse]] = defaultdict(list)
    for use in uses:
        found[use.grant_id].append(use)
    return found


def _agents(policy: Policy, uses: Iterable[GrantUse]) -> Iterator[str]:
    yield from _names(policy.agents)
    if policy.agents is None:
        yield from sorted({use.agent for use in uses})


def _tally(uses: Iterable[GrantUse], agent: str, tool: str) -> Use:
    """Add up, over all environments, what a grant allowed this agent with this tool."""
    found = [use for use in uses if agent in (use.agent, EVERY) and tool in (use.method, EVERY)]
    return Use(sum(use.calls for use in found), max((use.last for use in found), default=None))
