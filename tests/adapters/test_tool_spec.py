"""The specs that all adapters share: names, loading, keys, open writes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf import json_format, message_factory

from tests.adapters.contract import Desk, read_error, read_result
from tests.adapters.crib import DRAFT, LOOKUP, ORDER, REFUND_DRAFT, ToolScript
from toolcrib.adapters import Terms, ToolAnswer, ToolSpec, key_of, load_tools, load_tools_async
from toolcrib.adapters.names import MAX_CHARACTERS, model_names
from toolcrib.adapters.open_writes import MAX_REMEMBERED, OpenWrites, name_write
from toolcrib.client import AsyncClient, CallTerms, Client, Tool, Unreachable
from toolcrib.handler.v1 import handler_pb2


class Forgetful(OpenWrites):
    """Remembers nothing: the control."""

    def find(self, write: bytes) -> str:
        return ""


def spec_of(specs: list[ToolSpec], method: str) -> ToolSpec:
    return next(spec for spec in specs if spec.tool == method)


async def time_out_and_ask_again(desk: Desk, terms: Terms) -> ToolAnswer:
    """A write takes too long for the model, which asks for the same again, under an id of its own."""
    spec = spec_of(await load_tools_async(desk.client, [DRAFT], terms=terms), DRAFT)
    go_on = desk.script.stall()
    late = await spec.call(REFUND_DRAFT, key=key_of(desk.talk, "first"))
    assert read_error(late.text)["reason"] == "DEADLINE_EXCEEDED"
    go_on()
    return await spec.call(dict(reversed(REFUND_DRAFT.items())), key=key_of(desk.talk, "second"))


async def test_does_not_write_twice_when_the_model_asks_again(desk: Desk):
    answer = await time_out_and_ask_again(desk, Terms(timeout=0.7))
    assert answer.key == key_of(desk.talk, "first")
    assert desk.script.count(DRAFT) == 1


async def test_would_write_twice_without_the_memory(desk: Desk):
    """The control: another id of the framework is another key, and another write."""
    await time_out_and_ask_again(desk, Terms(timeout=0.7, open_writes=Forgetful()))
    assert desk.script.count(DRAFT) == 2


async def test_writes_again_once_the_outcome_is_known(desk: Desk):
    terms = Terms(timeout=0.7)
    await time_out_and_ask_again(desk, terms)
    spec = spec_of(await load_tools_async(desk.client, [DRAFT], terms=terms), DRAFT)
    assert read_result((await spec.call(REFUND_DRAFT)).text)
    assert desk.script.count(DRAFT) == 2


async def test_gives_a_write_that_the_tool_undid_a_new_key(desk: Desk):
    spec = spec_of(await load_tools_async(desk.client, [DRAFT]), DRAFT)
    desk.script.failure = handler_pb2.Failure(code="BUSY", message="no", effect=handler_pb2.EFFECT_NONE)
    failed = await spec.call(REFUND_DRAFT, key=key_of(desk.talk, "1"))
    desk.script.failure = None
    answer = await spec.call(REFUND_DRAFT, key=key_of(desk.talk, "2"))
    assert failed.is_error
    assert read_result(answer.text)


async def test_tells_what_became_of_a_write_in_doubt_when_the_model_asks_again(desk: Desk):
    spec = spec_of(await load_tools_async(desk.client, [DRAFT], terms=Terms(timeout=2)), DRAFT)
    desk.script.failure = handler_pb2.Failure(code="LOST", message="hm", effect=handler_pb2.EFFECT_UNKNOWN)
    doubtful = await spec.call(REFUND_DRAFT, key=key_of(desk.talk, "first"))
    desk.script.failure = None
    assert read_error(doubtful.text)["reason"] == "IN_DOUBT"
    assert "untrusted" in doubtful.labels, "the tool's own words are in it"
    for number in range(20):
        answer = await spec.call(REFUND_DRAFT, key=key_of(desk.talk, f"again-{number}"))
        if not answer.is_error:
            break
    assert answer.replayed
    assert answer.key == doubtful.key


async def test_advises_against_another_way_when_nobody_answers(desk: Desk):
    class Silent(AsyncClient):
        async def invoke(self, *_: Any, **options: Any) -> Any:
            error = Unreachable("UNAVAILABLE", "gone")
            error.key, error.may_have_happened = options["key"], True
            raise error

    tool = Tool(DRAFT, "", "DRAFT", "INTERNAL", "", "1", "shop")
    answer = await Terms().bind_async(Silent(desk.client._open_channel), tool)(REFUND_DRAFT)
    assert "Do not do it in another way" in read_error(answer.text)["retry"]


async def test_loads_by_name_and_scope(client: AsyncClient):
    assert [spec.tool for spec in await load_tools_async(client, [DRAFT])] == [DRAFT]
    reads = await load_tools_async(client, scopes=["orders.read"])
    assert {spec.effect for spec in reads} == {"READ"}
    assert await load_tools_async(client, []) == []


async def test_says_which_name_is_none(client: AsyncClient):
    with pytest.raises(LookupError, match=f"did you mean {LOOKUP}"):
        await load_tools_async(client, [LOOKUP + "s"])


async def test_gives_the_same_with_a_synchronous_client(sync_client: Client, desk: Desk):
    ours, theirs = load_tools(sync_client), await load_tools_async(desk.client)
    assert [(spec.name, spec.json_schema) for spec in ours] == [(s.name, s.json_schema) for s in theirs]
    answer = await spec_of(ours, LOOKUP).call(ORDER)
    assert read_result(answer.text)["result"]["order"]["orderId"] == "A-1042"


async def test_raises_only_what_is_the_programs_mistake(desk: Desk):
    spec = spec_of(await desk.load(), LOOKUP)
    with pytest.raises(TypeError, match="must be a dict"):
        await spec.call("A-1042")  # type: ignore[arg-type]
    assert read_error((await spec.call({"orderId": float("nan")})).text)["reason"] == "REQUEST_MALFORMED"


async def test_has_the_schema_that_the_contract_gives(desk: Desk):
    for spec in await desk.load():
        assert spec.json_schema["type"] == "object"
        assert json.loads(json.dumps(spec.json_schema)) == spec.json_schema


async def test_asks_for_the_workflow_before_each_call(desk: Desk, script: ToolScript):
    asked: list[str] = []

    def handle() -> None:
        asked.append("now")

    spec = spec_of(await desk.load(workflow=handle), LOOKUP)
    await asyncio.gather(spec.call(ORDER), spec.call(ORDER))
    assert len(asked) == 2


def test_names_are_unique_and_fit_a_models_api():
    long = "a." * 40 + "v1.Service/DoSomething"
    tools = [LOOKUP, "a.b_c/D", "a_b.c/D", "a.b/c_D", long, long.replace("a.a", "b.a", 1), "ü.v1.S/M"]
    names = model_names(tools)
    assert len(set(names.values())) == len(tools)
    assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_CHARACTERS}}}", name) for name in names.values())
    assert names[LOOKUP] == "shop_v1_Orders_LookupOrder"
    assert names == model_names(reversed(tools))


def test_no_tool_takes_the_name_that_another_one_was_shortened_to():
    """An author who knows the other names chooses this one; its tool would get the other's calls."""
    known = ["a.b_c/D", "a_b.c/D"]
    imitated = sorted(set(model_names(known).values()))
    tools = [*known, *(f"{name}.v1.S/M".replace(".v1.S/M", "") for name in imitated)]
    assert len(set(model_names(tools).values())) == len(tools)


def test_a_write_is_named_by_what_is_sent():
    unsortable: Any = {1: "a", "b": 2}
    assert name_write("t", "", unsortable) == name_write("t", "", {"b": 2, "1": "a"})
    assert name_write("t", "", unsortable) != name_write("other", "", unsortable)


def test_a_key_belongs_to_run_and_call():
    keys = {key_of("run", "call"), key_of("run2", "call"), key_of("run", "call2"), key_of("runc", "all")}
    assert len(keys) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys)


def test_keeps_the_keys_of_two_open_writes_of_the_same_arguments():
    writes, name = OpenWrites(), name_write("t", "", {})
    for key in ("first", "second", "first"):
        writes.remember(name, key)
    found = []
    while key := writes.find(name):
        found.append(key)
        writes.forget(name, key)
    assert found == ["first", "second"]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("pydantic_ai", "pydantic_ai", "pydantic-ai"),
        ("langchain", "langchain_core", "langchain"),
        ("langgraph", "langgraph", "langchain"),
    ],
)
def test_names_the_extra_when_the_framework_is_not_there(module: str, package: str, extra: str):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"try:\n    import toolcrib.adapters.{module}\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert f'pip install "toolcrib[{extra}]"' in done.stdout


async def test_calls_a_generated_stub_of_the_real_broker(desk: Desk):
    contract = desk.crib.contracts[DRAFT]
    kinds = [
        message_factory.GetMessageClass(one)
        for one in (contract.request_descriptor, contract.response_descriptor)
    ]
    request = json_format.ParseDict(REFUND_DRAFT, kinds[0]())
    method: Any = desk.client.channel.unary_unary(
        f"/{DRAFT}", kinds[0].SerializeToString, kinds[1].FromString
    )
    first = await desk.client.call(method, request)
    again = await desk.client.call(method, request, terms=CallTerms(key=first.key))
    assert (first.replayed, again.replayed) == (False, True)
    assert (first.call_id, first.result) == (again.call_id, again.result)
    assert desk.script.count(DRAFT) == 1


def test_forgets_the_oldest_open_write_first():
    writes = OpenWrites()
    names = [name_write("t", "", {"n": number}) for number in range(MAX_REMEMBERED + 1)]
    for number, name in enumerate(names):
        writes.remember(name, str(number))
    assert (writes.find(names[0]), writes.find(names[1])) == ("", "1")
