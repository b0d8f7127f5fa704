"""Which grants a tool's call could come by, without its request: what they make of the way out.

Rules:
1. Conditions are not evaluated: they hang on the request, as does the currency of its amounts. A permit with
   some is one that may apply; so is each while a forbid with conditions may.
2. The order is that in which one of several is chosen for a call (`GrantSet`): those that need no person,
   then those that do not narrow, then by id. What comes after one that applies for sure is never chosen,
   unless it trusts destinations, which may be the call's.
3. A forbid without conditions that covers the call leaves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model import Grant
from broker.policy.files import Policy


@dataclass(frozen=True, slots=True)
class Permit:
    """A grant that a call could come by.

    Attributes:
        is_sure: It applies whatever is asked.
    """

    grant: Grant
    is_sure: bool


def find_permits(
    policies: Iterable[Policy],
    now: datetime,
    *,
    agent: str,
    method: str,
    environment: str,
    targets: Collection[str],
) -> Sequence[Permit]:
    """Find the grants by which an agent could call a tool, in the order in which they are chosen.

    Args:
        policies: A tenant's.
        now: What has expired by then counts as absent.
        agent: Its name.
        method: The tool.
        environment: Where.
        targets: Those that the tool uses; a grant has to name all of them.
    """
    covering = [
        policy
        for policy in policies
        if (policy.terms.expires is None or now < policy.terms.expires)
        and _covers(policy.agents, agent)
        and _covers(policy.methods, method)
        and _covers(policy.environments, environment)
    ]
    forbids = [policy for policy in covering if policy.effect == "forbid"]
    if any(not policy.conditions for policy in forbids):
        return ()
    permits = [
        Permit(policy.terms.grant(), not (policy.conditions or policy.terms.currency or forbids))
        for policy in covering
        if policy.effect == "permit" and policy.terms.targets >= set(targets)
    ]
    permits.sort(key=lambda one: (bool(one.grant.ask), one.grant.egress is not None, one.grant.grant_id))
    sure = next((number for number, one in enumerate(permits, start=1) if one.is_sure), len(permits))
    return [*permits[:sure], *(one for one in permits[sure:] if _may_go_before(one, permits[sure - 1]))]


def _may_go_before(permit: Permit, sure: Permit) -> bool:
    """Tell whether a permit is chosen before a sure one where it alone trusts the call's destinations."""
    return bool(permit.grant.destinations) and bool(permit.grant.ask) == bool(sure.grant.ask)


def _covers(names: frozenset[str] | None, name: str) -> bool:
    return names is None or name in names
