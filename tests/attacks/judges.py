"""Judges of attacks that show by how much they got, or by how their call ended."""

from __future__ import annotations

from collections.abc import Callable

from sandboxes.outcome import OutcomeKind, RawOutcome
from tests.attacks.arena import Attack, Ground, Judge, Verdict
from tests.parts.engine import answer_of


def at_least(amount: int) -> Callable[[str], bool]:
    """Tell from a number that the bomb came to its end."""
    return lambda answer: int(answer) >= amount


def at_most(amount: int) -> Callable[[str], bool]:
    """Tell from a number that a limit stopped the bomb."""
    return lambda answer: int(answer) <= amount


def ends_as(*kinds: OutcomeKind, won: OutcomeKind = OutcomeKind.RESULT, seconds: float = 10.0) -> Judge:
    """Judge by how the call ends.

    Args:
        kinds: How it ends when it is stopped.
        won: How it ends when it worked.
        seconds: The deadline.
    """

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        outcome = await ground.run(attack.program, seconds, **attack.spec)
        return Verdict(outcome.kind is won, told(outcome), outcome.kind in kinds)

    return judge


def within_memory(mib: int) -> Judge:
    """Judge by whether the bomb took so much, or was ended for it, or got no more."""

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        outcome = await ground.run(attack.program, **attack.spec)
        if outcome.kind is OutcomeKind.RESULT:
            taken = int(answer_of(outcome))
            return Verdict(taken >= mib << 20, f"took {taken >> 20} MiB", taken < mib << 20)
        is_ended = outcome.kind is OutcomeKind.CRASHED and "out of memory" in outcome.detail
        return Verdict(False, told(outcome), is_ended)

    return judge


def told(outcome: RawOutcome) -> str:
    """Say for people how a call ended."""
    return f"{outcome.kind} {outcome.detail} {outcome.failure or ''} {outcome.log[-300:]}"
