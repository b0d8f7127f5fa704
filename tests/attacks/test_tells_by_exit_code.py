"""Attack: a tool tells its secret byte by byte, as the code or the signal with which its handler ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandboxes.outcome import RawOutcome
from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

SECRET = "s3\x7f\x00"
"""What an exit code can say: also 127, by which a shell tells that there is no such program, and 0."""


def by_code(letter: str) -> str:
    return f"import os; os._exit({ord(letter)})"


def by_signal(letter: str) -> str:
    return f"import os, time; os.kill(os.getpid(), {1 + ord(letter) % 9}); time.sleep(5)"


def told(outcome: RawOutcome) -> tuple[str, str, str]:
    return outcome.kind.value, outcome.log, outcome.detail


@pytest.mark.parametrize("tell", [by_code, by_signal])
def test_tells_it_to_whoever_starts_it_without_a_sandbox(tell):
    codes = [
        subprocess.run([sys.executable, "-c", tell(letter)], check=False).returncode for letter in SECRET
    ]
    assert len(set(codes)) == len(SECRET)


async def test_exit_codes_say_no_more_than_good_or_not(obedient: Obedient):
    said = {told(await obedient.run(by_code(letter))) for letter in SECRET if letter != "\x00"}
    good = told(await obedient.run(by_code("\x00")))
    assert len(said) == 1
    assert [letter for letter in ("115", "51", "127") if letter in str(said)] == []
    assert good[0] == "crashed"


async def test_signals_say_nothing(obedient: Obedient):
    assert len({told(await obedient.run(by_signal(letter))) for letter in "s3x"}) == 1
