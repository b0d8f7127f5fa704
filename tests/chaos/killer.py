"""Which death each broker of a run dies: every failure point at every target in turn, the rest at random."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.chaos.broker_main import Plan
from tests.chaos.clients import METHODS

TOOL = "tool"
"""No boundary of the broker's: some moment after "start", while the tool is at work."""
POINTS = (
    "authenticate",
    "validate",
    "claim",
    "authorize",
    "gate",
    "approve",
    "reserve",
    "mint",
    "run",
    "dispatch",
    "start",
    TOOL,
    "sanitize",
    "settle",
    "end",
)
ERRAND_POINTS = ("reserve", "mint", "run", "dispatch", "start", "sanitize", "settle", "end")
ERRANDS = ("chaos.v1.Chaos/LookupProbed", "chaos.v1.Chaos/LookupLate")
"""What the broker asks on its own while it resolves: it is killed at that, too."""
FAULTS = ("fail", "delay", "stop")
FAULT_SECONDS = 1.0
LATEST_PASSING = 3
ARMING_SECONDS = (0.05, 0.8)
"""A failure point does not count at once: a broker that never lives gets nothing done."""
LONGEST_WORK_SECONDS = 0.06
ERRAND_PATIENCE_SECONDS = 2.0
LONGEST_LIFE_SECONDS = 1.0


@dataclass(frozen=True)
class Death:
    """How one broker ends.

    Attributes:
        plan: What it does to itself; without a point it is killed from outside.
        after_seconds: When it is killed from outside: since it listens, or since its fork when negative.
        patience_seconds: How long to wait for its failure point; it is killed from outside after that.
    """

    plan: Plan
    after_seconds: float = 0.0
    patience_seconds: float = 60.0

    @property
    def by_itself(self) -> bool:
        """True when the broker kills itself at its failure point."""
        return bool(self.plan.point) and self.plan.do == "kill"


def plan_deaths(kills: int, seed: int, base: Plan) -> list[Death]:
    """List all deaths of a run: whole rounds over points and targets first, then at random moments."""
    dice = random.Random(seed)
    places = list(itertools.product(POINTS, METHODS.values()))
    rounds = kills // len(places)
    planned = [place for _ in range(rounds) for place in places]
    if not rounds:  # fewer kills than places: as many of them as there is room for
        planned = dice.sample(places, min(kills * 2 // 3, len(places)))
    deaths = [_at_a_point(place, base, dice) for place in planned]
    deaths += [_at_random(base, dice) for _ in range(kills - len(planned))]
    dice.shuffle(deaths)
    return deaths


def plan_fault(number: int, base: Plan, seconds: float) -> Death:
    """A longer life: one call fails or stalls, or the process is stopped past its epoch and woken."""
    dice = random.Random(number)
    fault = FAULTS[number % len(FAULTS)]
    method = dice.choice(list(METHODS.values()))
    point = dice.choice([point for point in POINTS if point != TOOL])
    return Death(replace(base, point=point, method=method, do=fault, seconds=FAULT_SECONDS), seconds)


def _at_a_point(place: Sequence[str], base: Plan, dice: random.Random) -> Death:
    point, method = place
    passing = dice.randint(1, LATEST_PASSING)
    armed = dice.uniform(*ARMING_SECONDS)
    plan = replace(base, point=point, method=method, passing=passing, armed_after=armed)
    if point == TOOL:
        plan = replace(plan, point="start", seconds=dice.uniform(0.001, LONGEST_WORK_SECONDS))
    return Death(plan)


def _at_random(base: Plan, dice: random.Random) -> Death:
    fate = dice.random()
    if fate < 0.1:
        return Death(base, -dice.uniform(0.05, 0.5))
    if fate < 0.4:
        plan = replace(base, point=dice.choice(ERRAND_POINTS), method=dice.choice(ERRANDS))
        return Death(plan, patience_seconds=ERRAND_PATIENCE_SECONDS)
    return Death(base, dice.uniform(0.01, LONGEST_LIFE_SECONDS))
