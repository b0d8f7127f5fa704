"""The order of the stages is the promise: every other order breaks one.

Any order but ours has two neighbours of ours the wrong way round: some stage k+1 runs before stage k. So it
is enough to show, for each pair of neighbours, what breaks when the later one comes first. Where the later
stage takes what the earlier one makes, it cannot even be called; the other pairs are run the wrong way round.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import get_type_hints

import pytest

from broker import path
from broker.errors import Refused
from broker.model import Answer, BudgetLimit, Call, Caller, Grant, Reservation
from broker.request import Peer, Request
from broker.stages.approve import approve
from broker.stages.gate import Concern
from broker.stages.run import RawOutput
from broker.trail import Recorder
from credentials.lease import Lease
from tests.broker.bench import METHOD, Bench

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


@pytest.fixture
async def bench() -> Bench:
    return await Bench.make()


FUNCTIONS: dict[str, Callable[..., object]] = {"approve": approve}

# What a stage makes that the next one cannot do without. The other pairs are run the wrong way round below.
MAKES: dict[str, object] = {
    "authenticate": Caller,
    "validate": Call,
    "authorize": Grant,
    "gate": tuple[Concern, ...],
    "reserve": Reservation,
    "mint": Sequence[Lease],
    "run": RawOutput,
    "sanitize": Answer,
}
RUN_THE_WRONG_WAY_ROUND = {"record", "claim", "approve"}


def function_of(stage: str) -> Callable[..., object]:
    if stage in FUNCTIONS:
        return FUNCTIONS[stage]
    return get_type_hints(path.Stages)[stage].__call__


def test_the_path_runs_the_stages_in_this_order():
    source = inspect.getsource(path.Path._walk) + inspect.getsource(path.Path._carry_out)
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


def test_shows_every_pair_of_neighbours():
    assert {earlier for earlier, _ in PAIRS} == MAKES.keys() | RUN_THE_WRONG_WAY_ROUND


async def test_authenticate_before_record_would_refuse_without_a_call_id(bench: Bench):
    peer, recorder = Peer(b""), Recorder(bench.store, bench.workflows.note)
    with pytest.raises(Refused) as before:
        bench.authenticate(peer)
    trail = recorder.begin(Request(peer, METHOD, b"", math.inf))
    with pytest.raises(Refused):
        async with recorder.open(trail):
            bench.authenticate(peer)
    assert trail.call_id
    assert not hasattr(before.value, "call_id")


async def test_a_stage_outside_record_would_leave_no_trace(bench: Bench):
    request, trail = bench.request(environment="mars"), bench.trail()
    assert trail.caller is not None
    with pytest.raises(Refused):
        await bench.validate(request, trail.caller, trail)
    assert not (await bench.store.list_calls("shop")).items
    with pytest.raises(Refused):
        async with bench.recorder.open(trail):
            await bench.validate(request, trail.caller, trail)
    assert [call.state for call in (await bench.store.list_calls("shop")).items] == ["REFUSED"]


async def test_authorize_before_claim_would_lose_an_answer_that_was_given(bench: Bench):
    await bench.finish_a_write()
    call, trail = await bench.make_call()
    async with bench.claim(call, bench.request(), trail) as claimed:
        assert claimed.earlier_answer is not None
    with pytest.raises(Refused) as refusal:
        bench.authorize(call, trail)
    assert refusal.value.reason_name == "NOT_GRANTED"


async def test_reserve_before_approve_would_let_what_cannot_run_use_up_the_budget(bench: Bench):
    grant = Grant("once", ask="always", limits=(BudgetLimit("calls", 1, 3600),))
    waiting, trail = await bench.make_call(key="waiting")
    other, other_trail = await bench.make_call(key="other")
    with pytest.raises(Refused, match="a person has to approve"):
        approve(waiting, grant, ())
    async with (
        bench.claim(waiting, bench.request("waiting"), trail) as claimed,
        bench.claim(other, bench.request("other"), other_trail) as other_claimed,
        bench.reserve(waiting, grant, claimed, trail),
    ):
        with pytest.raises(Refused) as refusal:
            await bench.reserve(other, grant, other_claimed, other_trail).__aenter__()
    assert refusal.value.reason_name == "BUDGET_EXHAUSTED"
