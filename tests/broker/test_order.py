"""The order of the stages is the promise: every other order breaks one.

Any order but ours has two neighbours of ours the wrong way round: some stage k+1 runs before stage k. So it is
enough to show, for each pair of neighbours, what breaks when the later one comes first. Where the later stage
takes what the earlier one makes, it cannot even be called; the other pairs are run the wrong way round.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import get_type_hints

import pytest

from broker import path
from broker.model import Answer, Call, Caller, Grant, Reservation
from broker.stages.approve import approve
from broker.stages.gate import Concern
from broker.stages.sanitize import sanitize

ORDER = (
    "record",
    "authenticate",
    "validate",
    "claim",
    "authorize",
    "gate",
    "approve",
    "reserve",
    "mint",
    "run",
    "sanitize",
    "settle",
)
PAIRS = list(itertools.pairwise(ORDER))

FUNCTIONS: dict[str, Callable[..., object]] = {"approve": approve, "sanitize": sanitize}

# What a stage makes that the next one cannot do without.
MAKES: dict[str, object] = {
    "authenticate": Caller,
    "validate": Call,
    "authorize": Grant,
    "gate": tuple[Concern, ...],
    "reserve": Reservation,
    "run": bytes,
    "sanitize": Answer,
}


def function_of(stage: str) -> Callable[..., object]:
    if stage in FUNCTIONS:
        return FUNCTIONS[stage]
    return get_type_hints(path.Stages)[stage].__call__


def test_the_path_runs_the_stages_in_this_order():
    source = inspect.getsource(path.Path._walk)
    assert ("record", *re.findall(r'trail\.at\("(\w+)"\)', source)) == ORDER


def test_any_other_order_has_two_neighbours_the_wrong_way_round():
    short = range(6)
    for order in itertools.permutations(short):
        if order != tuple(short):
            assert any(order.index(k + 1) < order.index(k) for k in short[:-1])


@pytest.mark.parametrize("earlier", MAKES)
def test_cannot_run_before_what_makes_its_input(earlier: str):
    later = ORDER[ORDER.index(earlier) + 1]
    hints = get_type_hints(function_of(later))
    assert MAKES[earlier] in hints.values(), f"{later} does not ask for what {earlier} makes"
