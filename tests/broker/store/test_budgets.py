"""Sliding windows, compared with the plainest arithmetic that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model import BudgetLimit, Charge
from broker.store.budgets import amounts_to_book, check_charges, merge_charges
from broker.store.records import BudgetExhausted

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass(frozen=True)
class ListLedger:
    """Charges by their age in seconds."""

    ages_and_amounts: Sequence[tuple[int, int]]

    def entries(self, charge: Charge, since: datetime) -> Sequence[tuple[datetime, int]]:
        entries = [(NOW - timedelta(seconds=age), amount) for age, amount in self.ages_and_amounts]
        return sorted(entry for entry in entries if entry[0] > since)

    def used(self, charge: Charge, since: datetime) -> int:
        return sum(amount for _, amount in self.entries(charge, since))


def make_charge(amount: int, limit: int, window_seconds: int, unit: str = "minor:EUR") -> Charge:
    return Charge("g", BudgetLimit(unit, limit, window_seconds), amount)


def refusal(charge: Charge, ledger: ListLedger, now: datetime = NOW) -> BudgetExhausted | None:
    try:
        check_charges([charge], ledger, now)
    except BudgetExhausted as error:
        return error
    return None


HISTORY = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=12)


@given(HISTORY, st.integers(0, 60), st.integers(0, 100), st.integers(1, 60))
def test_refuses_exactly_what_would_be_over_the_limit(
    history: list[tuple[int, int]], amount: int, limit: int, window: int
) -> None:
    error = refusal(make_charge(amount, limit, window), ListLedger(history))
    held = sum(past for age, past in history if age < window)
    assert (error is not None) == (held + amount > limit)


@given(HISTORY, st.integers(0, 60), st.integers(0, 100), st.integers(1, 60))
def test_names_the_first_moment_at_which_a_charge_fits(
    history: list[tuple[int, int]], amount: int, limit: int, window: int
) -> None:
    charge, ledger = make_charge(amount, limit, window), ListLedger(history)
    error = refusal(charge, ledger)
    if error is None or amount > limit:
        assert error is None or error.retry_after_seconds == 0
        return
    then = NOW + timedelta(seconds=error.retry_after_seconds)
    assert refusal(charge, ledger, then) is None
    assert refusal(charge, ledger, then - timedelta(microseconds=1)) is not None


def test_names_the_charge_that_waits_longest_and_first_the_one_that_never_fits() -> None:
    ledger = ListLedger([(10, 5)])
    short, long, never = make_charge(1, 5, 20), make_charge(1, 5, 50), make_charge(6, 5, 20)
    with pytest.raises(BudgetExhausted) as caught:
        check_charges([short, long], ledger, NOW)
    assert (caught.value.charge, caught.value.retry_after_seconds) == (long, 40)
    with pytest.raises(BudgetExhausted) as caught:
        check_charges([short, never, long], ledger, NOW)
    assert (caught.value.charge, caught.value.retry_after_seconds) == (never, 0)


def test_books_one_amount_a_unit_however_many_windows_look_at_it() -> None:
    charges = merge_charges([make_charge(3, 9, 60), make_charge(4, 9, 60), make_charge(7, 99, 3600)])
    assert [charge.amount for charge in charges] == [7, 7]
    assert amounts_to_book(charges) == {("g", "minor:EUR"): 7}
