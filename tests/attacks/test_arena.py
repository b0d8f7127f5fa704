"""Runs every attack against every runtime, and against a sandbox that lacks a protection."""

from __future__ import annotations

import platform

import pytest

from tests.attacks import table
from tests.attacks.arena import RUNTIMES, Attack, Ground, load_attacks

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the programs carry numbers of x86-64"),
]
ATTACKS = load_attacks()


def skip_where_pointless(attack: Attack, runtime: str = "") -> None:
    """Skip an attack on something that this kernel, or the runtime, does not have."""
    reason = attack.not_on.get(runtime) or (attack.probe() if attack.probe else None)
    if reason:
        pytest.skip(f"not applicable: {reason}")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.family}: {attack.name}")
async def test_is_stopped(attack: Attack, ground: Ground) -> None:
    skip_where_pointless(attack, ground.runtime)
    verdict = await attack.try_on(ground)
    if finding := attack.findings.get(ground.runtime):
        assert verdict.won, f"it is stopped now: take the finding out of the attack: {finding}"
        pytest.xfail(f"known not to be stopped: {finding}")
    assert not verdict.won, f"the attack worked: {verdict.told}"
    assert verdict.is_stopped, f"it did not meet what should stop it: {verdict.told}"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.family}: {attack.name}")
async def test_works_where_a_protection_is_missing(attack: Attack, open_ground: Ground) -> None:
    skip_where_pointless(attack)
    verdict = await attack.try_on(open_ground)
    assert verdict.won, f"the attack did not even work here: {verdict.told}"


def test_stands_in_the_documentation() -> None:
    assert table.main([]) == 0, "docs/security.md is old: python -m tests.attacks.table --write"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.family}: {attack.name}")
def test_says_what_stops_it_and_how_its_control_is_weakened(attack: Attack) -> None:
    assert all(attack.what_stops(runtime) for runtime in RUNTIMES)
    assert table.describe_control(attack)
    assert "|" not in attack.name + attack.goal


def test_applies_almost_always() -> None:
    beside = [attack.name for attack in ATTACKS if attack.not_on or (attack.probe and attack.probe())]
    assert len(ATTACKS) >= 60
    assert len(beside) <= 6, beside
