"""The OpenAI Agents SDK with a model of ours; nothing leaves the machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from agents import Agent, FunctionTool, ModelResponse, RunConfig, Runner, Usage
from agents.models.interface import Model
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from tests.adapters.contract import AdapterContract, Ask, Desk, Offered, read_error, read_result
from tests.adapters.crib import DRAFT, LOOKUP, ORDER, REFUND_DRAFT
from toolcrib.adapters import ToolSpec, load_tools_async
from toolcrib.adapters.openai_agents import tools_of

QUIET = RunConfig(tracing_disabled=True)


class ScriptedModel(Model):
    """Asks for what the test says; keeps what it is shown."""

    def __init__(self, turns: Sequence[Sequence[Ask]]) -> None:
        self.left = list(turns)
        self.texts: list[str] = []
        self.tools: list[Any] = []
        self._read = 0

    async def get_response(self, *_: Any, **shown: Any) -> ModelResponse:
        given, tools = shown["input"], shown["tools"]
        self.tools = list(tools)
        results = [
            item for item in given if isinstance(item, dict) and item.get("type") == "function_call_output"
        ]
        self.texts += [str(item["output"]) for item in results[self._read :]]
        self._read = len(results)
        output: list[Any] = [_call(ask) for ask in self.left.pop(0)] if self.left else [_message("done")]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any):
        raise NotImplementedError


def _call(ask: Ask) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        call_id=ask.id, name=ask.tool, arguments=json.dumps(ask.arguments), type="function_call"
    )


def _message(text: str) -> ResponseOutputMessage:
    content = [ResponseOutputText(text=text, type="output_text", annotations=[])]
    return ResponseOutputMessage(
        id="m", content=content, role="assistant", status="completed", type="message"
    )


async def ask_model(tools: Sequence[FunctionTool], turns: Sequence[Sequence[Ask]]) -> ScriptedModel:
    """Run an agent whose model asks for these."""
    model = ScriptedModel(turns)
    await Runner.run(Agent("desk", tools=list(tools), model=model), "go", run_config=QUIET)
    return model


class OpenAiDriver:
    """Runs an agent whose model asks for what the test says."""

    async def run(
        self, specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        return (await ask_model(tools_of(specs, run_id=conversation), turns)).texts

    async def offer(self, specs: Sequence[ToolSpec]) -> list[Offered]:
        model = await ask_model(tools_of(specs), [])
        return [Offered(tool.name, tool.description, tool.params_json_schema) for tool in model.tools]


class TestOpenAiAgents(AdapterContract):
    driver = OpenAiDriver()


async def test_makes_two_writes_of_two_runs_whose_calls_have_one_id(desk: Desk):
    """Models that count their calls begin again in each run: another run's first call is another call."""
    tools = tools_of(await desk.load())
    for _ in range(2):
        await ask_model(tools, [[desk.ask(DRAFT, REFUND_DRAFT, "call_1")]])
    assert desk.script.count(DRAFT) == 2


async def test_makes_one_write_of_a_call_that_a_run_makes_again(desk: Desk):
    """What the SDK runs again, with the run's own state, is one write."""
    tool = next(one for one in tools_of(await desk.load()) if one.name.endswith("CreateRefundDraft"))
    usage, text = Usage(), json.dumps(REFUND_DRAFT)
    context: Callable[[], Any] = lambda: ToolContext(  # noqa: E731 - one each time
        None, usage=usage, tool_name=tool.name, tool_call_id="call_1", tool_arguments=text
    )
    first, again = [await tool.on_invoke_tool(context(), text) for _ in range(2)]
    assert read_result(first) == read_result(again)
    assert desk.script.count(DRAFT) == 1


async def test_takes_the_run_from_the_programs_own_context(desk: Desk):
    await desk.load()
    tools = tools_of(desk.specs, run_id=lambda context: str(context.run_config.group_id))
    config = RunConfig(tracing_disabled=True, group_id="ticket-7")
    for _ in range(2):
        model = ScriptedModel([[desk.ask(DRAFT, REFUND_DRAFT)]])
        await Runner.run(Agent("desk", tools=list(tools), model=model), "go", run_config=config)
    assert desk.script.count(DRAFT) == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '"A-1"', '{"orderId": "A-1", "orderId": "A-2"}', '{"a": NaN}', "[" * 9999]
)
async def test_refuses_arguments_that_are_no_json_object(desk: Desk, text: str):
    tool = next(one for one in tools_of(await desk.load()) if one.name.endswith("LookupOrder"))
    context = ToolContext(None, tool_name=tool.name, tool_call_id="c", tool_arguments=text)
    assert read_error(await tool.on_invoke_tool(context, text))["reason"] == "REQUEST_MALFORMED"
    assert desk.script.runs == []


async def test_offers_a_strict_schema_as_strict(desk: Desk):
    specs = await load_tools_async(desk.client, (LOOKUP, DRAFT), strict=True)
    for tool in tools_of(specs):
        assert tool.strict_json_schema
        assert tool.params_json_schema["additionalProperties"] is False


async def test_takes_what_a_strict_model_sends(desk: Desk):
    """A strict schema requires every property; what is left out comes as null."""
    desk.specs = await load_tools_async(desk.client, (LOOKUP, DRAFT), strict=True)
    (tool,) = [tool for tool in tools_of(desk.specs) if tool.name.endswith("LookupOrder")]
    arguments = {**dict.fromkeys(tool.params_json_schema["properties"]), **ORDER}
    model = await ask_model([tool], [[desk.ask(LOOKUP, arguments)]])
    assert read_result(model.texts[0])["result"]["order"]["orderId"] == "A-1042"
