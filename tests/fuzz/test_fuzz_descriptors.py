"""The fuzzer's short form: a fixed number of cases, and proof that it would see what it looks for."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.fuzz import fuzz_descriptors
from tests.fuzz.fuzz_descriptors import Tally, load_originals, run_child, try_case
from tests.fuzz.mutation import Mutator

SEED, CASES = 5, 100
LONG = bool(os.environ.get("TOOLCRIB_LONG"))


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    return load_originals()


def test_registers_or_refuses_whatever_comes(originals: list[bytes]) -> None:
    tally, mutator = Tally(), Mutator(SEED, originals)
    for number in range(CASES * (20 if LONG else 1)):
        try_case(mutator.make(number), random.Random(number), tally)
    assert tally.cases - tally.accepted > tally.cases / 10
    assert tally.accepted > tally.cases / 10


def test_makes_the_same_case_of_the_same_number(originals: list[bytes]) -> None:
    assert Mutator(SEED, originals).make(3) == Mutator(SEED, originals).make(3)
    assert Mutator(SEED, originals).make(3) != Mutator(SEED, originals).make(4)


def test_accepts_what_it_starts_from(originals: list[bytes]) -> None:
    tally = Tally()
    for data in originals:
        try_case(data, random.Random(0), tally)
    assert tally.accepted == len(originals)


def crash(_seed: int, first: int, _last: int, _folder: Path, out: Connection) -> None:
    out.send(first)
    os._exit(7)


def hang(_seed: int, first: int, _last: int, _folder: Path, out: Connection) -> None:
    out.send(first)
    while True:
        time.process_time()


def test_names_the_case_that_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzz_descriptors, "_work", crash)
    tally, next_case = run_child(1, 40, 50, tmp_path)
    assert (next_case, tally.failures) == (41, ["case 1:40 ended the process: exit code 7"])


def test_names_the_case_that_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzz_descriptors, "_work", hang)
    monkeypatch.setattr(fuzz_descriptors, "CASE_SECONDS", 2)
    tally, next_case = run_child(1, 40, 50, tmp_path)
    assert next_case == 41
    assert "case 1:40 takes longer" in tally.failures[0]
