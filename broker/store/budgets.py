"""Sliding windows: what a budget holds, what still fits, and when more will.

Rules:
1. A budget is tenant, environment, grant and unit. Windows of different length look at the same charges, so
   that neither a second limit nor an edited one counts from nothing.
2. A charge made at t is in a window of w seconds until t + w, and not at t + w.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from broker.model import BudgetLimit, Charge
from broker.store.records import BudgetExhausted


class Ledger(Protocol):
    """The charges of one tenant and environment."""

    def used(self, charge: Charge, since: datetime) -> int:
        """Sum what was charged to the same grant and unit after `since`."""

    def entries(self, charge: Charge, since: datetime) -> Iterable[tuple[datetime, int]]:
        """Iterate over (time, amount) of these charges, oldest first."""


def merge_charges(charges: Sequence[Charge]) -> Sequence[Charge]:
    """Add up what one call takes from the same limit.

    Raises:
        ValueError: A charge is negative: it would give budget back.
    """
    sums: dict[tuple[str, BudgetLimit], Charge] = {}
    for charge in charges:
        if charge.amount < 0:
            raise ValueError(
                f"{charge.grant_id}: a charge of {charge.amount} {charge.limit.unit} is negative"
            )
        found = sums.get((charge.grant_id, charge.limit))
        amount = charge.amount + (found.amount if found else 0)
        sums[charge.grant_id, charge.limit] = replace(charge, amount=amount)
    return tuple(sums.values())


def amounts_to_book(charges: Sequence[Charge]) -> Mapping[tuple[str, str], int]:
    """Say what is written for one call: one amount a (grant, unit), however many windows look at it."""
    amounts: dict[tuple[str, str], int] = {}
    for charge in charges:
        budget = charge.grant_id, charge.limit.unit
        amounts[budget] = max(charge.amount, amounts.get(budget, 0))
    return amounts


def check_charges(charges: Sequence[Charge], ledger: Ledger, now: datetime) -> None:
    """See that all charges fit.

    Raises:
        BudgetExhausted: For the charge that must wait longest; one that never fits comes first.
    """
    exhausted = [found for charge in charges if (found := _find_exhausted(charge, ledger, now))]
    if exhausted:
        raise max(exhausted, key=lambda one: one.retry_after_seconds or float("inf"))


def _find_exhausted(charge: Charge, ledger: Ledger, now: datetime) -> BudgetExhausted | None:
    since = now - timedelta(seconds=charge.limit.window_seconds)
    used = ledger.used(charge, since)
    excess = used + charge.amount - charge.limit.limit
    if excess <= 0:
        return None
    return BudgetExhausted(charge, used, _retry_after_seconds(charge, ledger, since, excess))


def _retry_after_seconds(charge: Charge, ledger: Ledger, since: datetime, excess: int) -> float:
    """Say when enough charges will have left the window; 0 where the charge alone is over the limit."""
    if charge.amount > charge.limit.limit:
        return 0.0
    for at, amount in ledger.entries(charge, since):
        excess -= amount
        if excess <= 0:
            return (at - since).total_seconds()
    return 0.0
