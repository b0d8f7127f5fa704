"""One key, one meaning: whatever else comes under it is refused, however it is written it is the same call.

Runs the real validate and claim on a store in memory, over the shop's writes and over a write whose request
has every kind of field that a bundle may have.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from broker.catalogue import Catalogue
from broker.errors import CallError
from broker.keys import TenantKeys
from broker.model import CallState
from broker.request import Peer, Request
from broker.stages.claim import Claimer
from broker.stages.validate import Validator
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, VersionRow
from broker.trail import Recorder
from tests.broker.bench import DESK, IMAGE, make_book, now, shop_source
from tests.broker.changes import changes
from tests.broker.spellings import Source, json_text, wire
from tests.tools.protos import HEAD, compile_text, write_manifest
from tools.catalogue import load_version

POST = "test.v1.Ledger/Post"
DRAFT, REFUND = "shop.v1.Orders/CreateRefundDraft", "shop.v1.Orders/IssueRefund"
LEDGER = """
service Ledger {
  rpc Post(PostRequest) returns (PostResponse) {
    option (toolcrib.v1.tool) = {effect: WRITE, scope: "ledger.post"};
  }
}
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_BLUE = 7; }
message Line {
  string account = 1;
  optional sint64 minor = 2;
  oneof where { string shelf = 3; int32 bin_number = 4; Line inside = 5; }
}
message Empty {}
message PostRequest {
  string some_text = 1;
  repeated int32 numbers = 2;
  optional string maybe = 3;
  optional int32 mark = 4;
  Line line = 5;
  repeated Line lines = 6;
  map<string, Line> by_name = 7;
  map<int32, string> by_number = 8;
  oneof choice { string left = 9; int64 right = 10; Line middle = 11; Color tint = 12; Empty none = 13; }
  Color color = 14;
  double ratio = 15;
  optional double maybe_ratio = 16;
  bytes data = 17;
  bool flag = 18;
  optional bool maybe_flag = 19;
  repeated string names = 20;
  repeated Color colors = 21;
  repeated sint32 steps = 22;
  repeated float small = 23;
  google.protobuf.Timestamp when = 24;
  google.protobuf.StringValue wrapped = 25;
  uint64 natural = 26;
  fixed32 fixed = 27;
  sfixed64 signed_fixed = 28;
  map<bool, Color> by_flag = 29;
  Empty nothing = 30;
  optional bytes maybe_data = 31;
  repeated bool flags = 32;
}
message PostResponse { string text = 1; }
"""
MONEY = {
    "shop.v1.Money.minor_units": st.integers(0, 100_000_000),
    "shop.v1.Money.currency": st.from_regex("[A-Z]{3}", fullmatch=True),
}
VALUES = MONEY | {
    "google.protobuf.Timestamp.seconds": st.integers(-62135596800, 253402300799),
    "google.protobuf.Timestamp.nanos": st.integers(0, 999_999_999),
    "shop.v1.CreateRefundDraftRequest.order_id": st.from_regex("[A-Z]-[0-9]{1,9}", fullmatch=True),
    "shop.v1.CreateRefundDraftRequest.comment": st.text(min_size=3, max_size=9),
    "shop.v1.IssueRefundRequest.order_id": st.from_regex("[A-Z]-[0-9]{1,9}", fullmatch=True),
    "shop.v1.IssueRefundRequest.payout_account": st.just("")
    | st.from_regex("[a-z]{1,4}:[A-Za-z0-9]{4,8}", fullmatch=True),
}
REQUIRED = frozenset({"shop.v1.CreateRefundDraftRequest.amount", "shop.v1.IssueRefundRequest.amount"})
METHODS = st.sampled_from([POST, POST, DRAFT, REFUND])
PROPERTY = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


class KeyBench:
    """Validate and claim on a store in memory, with a way to end the first call under a key."""

    def __init__(self, store: MemoryStore, catalogue: Catalogue) -> None:
        self.store = store
        self.catalogue = catalogue
        self.workflows = make_book()
        self.recorder = Recorder(store, self.workflows.note)
        self.validate = Validator(catalogue, store, TenantKeys(b"k" * 32), ("dev", "staging"), self.workflows)
        self.claim = Claimer(store, self.workflows)

    @classmethod
    async def make(cls) -> KeyBench:
        store = MemoryStore()
        ledger = compile_text(HEAD + LEDGER)
        shop = shop_source()
        for descriptor_set, manifest in (
            (ledger, write_manifest(POST)),
            (shop.descriptor_set, shop.manifest_yaml),
        ):
            await register(store, descriptor_set, manifest)
        catalogue = Catalogue(store)
        await catalogue.load()
        return cls(store, catalogue)

    def message(self, source: Source, method: str) -> Any:
        version = self.catalogue.resolve("shop", method, "")
        return source.message(version.contracts[method].request_descriptor)

    async def run(self, method: str, key: str, raw: bytes | str, environment: str = "dev") -> str:
        """Ask under a key: "RAN", "REPLAYED", or the reason of a refusal."""
        metadata = {"toolcrib-idempotency-key": key, "toolcrib-environment": environment}
        is_json = isinstance(raw, str)
        body = raw.encode() if isinstance(raw, str) else raw
        request = Request(Peer(b""), method, body, math.inf, is_json, metadata)
        trail = self.recorder.begin(request)
        trail.caller = DESK
        try:
            call = await self.validate(request, DESK, trail)
            async with self.claim(call, request, trail) as claimed:
                if claimed.earlier_answer is not None:
                    return "REPLAYED"
                record = trail.record(CallState.RESERVED)
                await self.store.reserve(record, claimed.scope, (), trail.event("test"))
                await self.store.dispatch(call.call_id, ())
                done = replace(trail.record(CallState.SUCCEEDED), result=b"")
                await self.store.complete(done, trail.event("test"))
                return "RAN"
        except CallError as error:
            return error.reason_name


async def register(store: MemoryStore, descriptor_set: bytes, manifest: str) -> None:
    version = load_version(descriptor_set, manifest, IMAGE)
    event = AuditEvent("test", "shop", "", now())
    names = ("shop", version.bundle, version.version, version.digest, "USABLE")
    row = VersionRow(*names, descriptor_set, manifest, IMAGE, "ada", now(), "rob", now())
    await store.put_version(row, event)
    await store.move_alias("shop", version.bundle, "stable", version.version, event)


@pytest.fixture
async def bench() -> KeyBench:
    return await KeyBench.make()


def source_of(data: Any) -> Source:
    return Source(data.draw, VALUES, REQUIRED)


def new_key() -> str:
    return uuid.uuid4().hex


Spell = Callable[[Source, Any], bytes | str]
SPELLINGS: list[Spell] = [wire, json_text]


@settings(PROPERTY, max_examples=40)
@given(data=st.data(), method=METHODS)
async def test_refuses_every_change_of_a_value_or_a_presence(bench: KeyBench, data: Any, method: str):
    source, key = source_of(data), new_key()
    message = bench.message(source, method)
    assert await bench.run(method, key, message.SerializeToString()) == "RAN"
    for changed in changes(source, message):
        again = await bench.run(method, key, changed.SerializeToString())
        assert again == "KEY_REUSED" or (method != POST and again == "REQUEST_INVALID"), changed


@PROPERTY
@given(data=st.data(), method=METHODS)
async def test_replays_every_other_writing_of_the_same(bench: KeyBench, data: Any, method: str):
    source, key = source_of(data), new_key()
    message = bench.message(source, method)
    first, second = (data.draw(st.sampled_from(SPELLINGS))(source, message) for _ in range(2))
    assert await bench.run(method, key, first) == "RAN"
    assert await bench.run(method, key, second) == "REPLAYED"


@PROPERTY
@given(data=st.data(), method=METHODS)
async def test_runs_the_same_key_in_another_environment(bench: KeyBench, data: Any, method: str):
    source, key = source_of(data), new_key()
    raw = bench.message(source, method).SerializeToString()
    assert await bench.run(method, key, raw) == "RAN"
    assert await bench.run(method, key, raw, "staging") == "RAN"
    assert await bench.run(method, key, raw, "staging") == "REPLAYED"


@PROPERTY
@given(data=st.data(), raw=st.binary(max_size=40) | st.text(max_size=40))
async def test_runs_nothing_else_under_a_used_key_whatever_comes(
    bench: KeyBench, data: Any, raw: bytes | str
):
    source, key = source_of(data), new_key()
    assert await bench.run(POST, key, bench.message(source, POST).SerializeToString()) == "RAN"
    assert await bench.run(POST, key, raw) != "RAN"


# Each field that can be there or not, once set to its default: nothing else differs.
PRESENT = [
    '{"maybe": ""}',
    '{"mark": 0}',
    '{"maybeRatio": 0}',
    '{"maybeFlag": false}',
    '{"maybeData": ""}',
    '{"line": {}}',
    '{"line": {"minor": 0}}',
    '{"line": {"shelf": ""}}',
    '{"line": {"binNumber": 0}}',
    '{"line": {"inside": {}}}',
    '{"left": ""}',
    '{"right": 0}',
    '{"middle": {}}',
    '{"tint": 0}',
    '{"none": {}}',
    '{"nothing": {}}',
    '{"wrapped": ""}',
    '{"when": "1970-01-01T00:00:00Z"}',
    '{"lines": [{}]}',
    '{"lines": [{}, {}]}',
    '{"numbers": [0]}',
    '{"byName": {"": {}}}',
    '{"byName": {"": {"minor": 0}}}',
    '{"byNumber": {"0": ""}}',
    '{"byFlag": {"false": 0}}',
]


@pytest.mark.parametrize("text", PRESENT)
async def test_tells_a_default_that_is_there_from_nothing(bench: KeyBench, text: str):
    assert await bench.run(POST, "k", "{}") == "RAN"
    assert await bench.run(POST, "k", text) == "KEY_REUSED"


async def test_gives_each_of_them_a_meaning_of_its_own(bench: KeyBench):
    for mine in PRESENT:
        key = new_key()
        assert await bench.run(POST, key, mine) == "RAN"
        assert {await bench.run(POST, key, other) for other in PRESENT if other != mine} == {"KEY_REUSED"}


# What a lenient reader takes for {"mark": 1, "data": "AQ==", "color": "COLOR_RED"}.
LENIENT = [
    '{"mark":"1_0","data":"AQ==","color":1}',
    '{"mark":" 1","data":"AQ==","color":1}',
    '{"mark":"01","data":"AQ==","color":1}',
    '{"mark":"+1","data":"AQ==","color":1}',
    '{"mark":"1.0","data":"AQ==","color":1}',
    '{"mark":true,"data":"AQ==","color":1}',
    '{"mark":1.5,"data":"AQ==","color":1}',
    '{"mark":[1],"data":"AQ==","color":1}',
    '{"mark":1,"mark":1,"data":"AQ==","color":1}',
    '{"mark":1,"data":"A Q = =","color":1}',
    '{"mark":1,"data":"AQ=","color":1}',
    '{"mark":1,"data":"AQ==","color":"1"}',
    '{"mark":1,"data":"AQ==","color":"color_red"}',
    '{"mark":1,"data":"AQ==","color":1,"someText":"","some_text":""}',
    '{"mark":1,"data":"AQ==","color":1,"left":"a","right":1}',
    '{"mark":1,"data":"AQ==","color":1,"unknown":null}',
    '{"mark":1,"data":"AQ==","color":1,}',
    '[{"mark":1,"data":"AQ==","color":1}]',
    '\ufeff{"mark":1,"data":"AQ==","color":1}',
    '{"mark":1,"data":"AQ==","color":1,"ratio":NaN}',
    '{"Mark":1,"data":"AQ==","color":1}',
]


@pytest.mark.parametrize("text", LENIENT)
async def test_refuses_what_only_a_lenient_reader_would_take(bench: KeyBench, text: str):
    assert await bench.run(POST, "k", '{"mark":1,"data":"AQ==","color":1}') == "RAN"
    assert await bench.run(POST, "k", text) in {"REQUEST_INVALID", "REQUEST_MALFORMED"}


async def test_keeps_keys_of_two_methods_apart(bench: KeyBench):
    money = '{"orderId":"A-1","amount":{"minorUnits":1,"currency":"EUR"}}'
    draft = money[:-1] + ',"comment":"broken"}'
    assert await bench.run(REFUND, "k", money) == "RAN"
    assert await bench.run(DRAFT, "k", draft) == "RAN"
