"""Google's Agent Development Kit with a model of ours; nothing leaves the machine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types
from pydantic import Field, PrivateAttr

from tests.adapters.contract import AdapterContract, Ask, Desk, Offered, read_result
from tests.adapters.crib import DRAFT, LOOKUP, ORDER, REFUND_DRAFT
from toolcrib.adapters import ToolSpec
from toolcrib.adapters.google_adk import ToolcribToolset, tools_of
from toolcrib.client import AsyncClient


class ScriptedLlm(BaseLlm):
    """Asks for what the test says; keeps what it is shown."""

    model: str = "scripted"
    _left: list[Sequence[Ask]] = PrivateAttr(default_factory=list)
    texts: list[str] = Field(default_factory=list)
    declared: list[Any] = Field(default_factory=list)

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        for tool in llm_request.config.tools or ():
            self.declared.extend(getattr(tool, "function_declarations", None) or ())
        parts = llm_request.contents[-1].parts or []
        self.texts.extend(
            json.dumps(part.function_response.response, ensure_ascii=False)
            for part in parts
            if part.function_response
        )
        asks = self._left.pop(0) if self._left else ()
        said = [types.Part(function_call=_call(ask)) for ask in asks] or [types.Part(text="done")]
        yield LlmResponse(content=types.Content(role="model", parts=said))


def _call(ask: Ask) -> types.FunctionCall:
    return types.FunctionCall(name=ask.tool, args=ask.arguments, id=ask.id or None)


async def ask_model(tools: Sequence[Any], turns: Sequence[Sequence[Ask]], session_id: str) -> ScriptedLlm:
    """Run an agent whose model asks for these."""
    model = ScriptedLlm()
    model._left = list(turns)
    runner = InMemoryRunner(agent=LlmAgent(name="desk", model=model, tools=list(tools)), app_name="desk")
    await runner.session_service.create_session(app_name="desk", user_id="ada", session_id=session_id)
    said = types.Content(role="user", parts=[types.Part(text="go")])
    async for _event in runner.run_async(user_id="ada", session_id=session_id, new_message=said):
        pass
    return model


class AdkDriver:
    """Runs an agent whose model asks for what the test says."""

    async def run(
        self, specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        return (await ask_model(tools_of(specs), turns, conversation)).texts

    async def offer(self, specs: Sequence[ToolSpec]) -> list[Offered]:
        model = await ask_model(tools_of(specs), [], "offer")
        return [Offered(one.name, one.description, one.parameters_json_schema) for one in model.declared]


class TestGoogleAdk(AdapterContract):
    driver = AdkDriver()


async def test_loads_the_tools_of_a_toolset(desk: Desk, profile_folder: Any):
    await desk.load()
    toolset = ToolcribToolset(AsyncClient.from_profile(profile_folder), [LOOKUP])
    model = await ask_model([toolset], [[desk.ask(LOOKUP, ORDER)]], "toolset")
    assert read_result(model.texts[0])["result"]["order"]["orderId"] == "A-1042"
    assert {one.name for one in model.declared} == {"shop_v1_Orders_LookupOrder"}
    await toolset.close()


async def test_puts_a_prefix_before_the_names(desk: Desk, profile_folder: Any):
    toolset = ToolcribToolset(AsyncClient.from_profile(profile_folder), [LOOKUP], tool_name_prefix="crib")
    model = await ask_model([toolset], [[Ask("crib_shop_v1_Orders_LookupOrder", ORDER)]], "prefix")
    assert read_result(model.texts[0])["result"]
    assert {one.name for one in model.declared} == {"crib_shop_v1_Orders_LookupOrder"}
    await toolset.close()


async def test_names_a_tool_that_is_none(profile_folder: Any):
    toolset = ToolcribToolset(AsyncClient.from_profile(profile_folder), ["shop.v1.Orders/LookupOrders"])
    with pytest.raises(LookupError, match="LookupOrder"):
        await toolset.get_tools()
    await toolset.close()


async def test_makes_two_writes_of_two_sessions_whose_calls_have_one_id(desk: Desk):
    await desk.load()
    for session in ("one", "another"):
        await ask_model(tools_of(desk.specs), [[desk.ask(DRAFT, REFUND_DRAFT, "call_1")]], session)
    assert desk.script.count(DRAFT) == 2


async def test_gives_a_call_without_an_id_a_key_of_its_own(desk: Desk):
    await desk.load()
    for _ in range(2):
        await ask_model(tools_of(desk.specs), [[desk.ask(DRAFT, REFUND_DRAFT, "")]], "nameless")
    assert desk.script.count(DRAFT) == 2


async def test_answers_a_name_that_the_model_made_up(desk: Desk):
    await desk.load()
    model = await ask_model(tools_of(desk.specs), [[Ask("shop_v1_Orders_Delete", {})]], "made-up")
    assert "shop_v1_Orders_Delete" in model.texts[0]
    assert desk.script.runs == []
