"""LangGraph: a graph of a model and the adapter's node, as agents are built with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import tools_condition

from tests.adapters.contract import AdapterContract, Ask, Desk, Offered, read_result
from tests.adapters.crib import DRAFT, REFUND_DRAFT
from tests.adapters.test_langchain import script_of
from toolcrib.adapters import ToolSpec
from toolcrib.adapters.langgraph import tool_node_of, tools_of


def build(specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], saver: Any = None) -> Any:
    model = script_of(turns).bind_tools(tools_of(specs))

    async def think(state: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", think)
    graph.add_node("tools", tool_node_of(specs))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


class LangGraphDriver:
    """Runs the graph to its end."""

    async def run(
        self, specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        config = {"configurable": {"thread_id": conversation}}
        end = await build(specs, turns).ainvoke({"messages": [("user", "go")]}, config)
        return [str(message.content) for message in end["messages"] if isinstance(message, ToolMessage)]

    async def offer(self, specs: Sequence[ToolSpec]) -> list[Offered]:
        tools = tool_node_of(specs).tools_by_name.values()
        functions = [convert_to_openai_tool(tool)["function"] for tool in tools]
        return [Offered(item["name"], item["description"], item["parameters"]) for item in functions]


class TestLangGraph(AdapterContract):
    driver = LangGraphDriver()


async def test_makes_two_writes_of_two_runs_whose_calls_have_one_id(desk: Desk):
    """Without a thread nothing else tells the runs of one graph apart, where a model counts its calls."""
    await desk.load()
    graph = build(desk.specs, [[desk.ask(DRAFT, REFUND_DRAFT, "call_1")]])
    for _ in range(2):
        await graph.ainvoke({"messages": [("user", "go")]})
    assert desk.script.count(DRAFT) == 2


async def test_replays_a_write_when_the_graph_crashes_behind_it_and_is_resumed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    """The tool ran, and the process died before the checkpoint was written."""
    await desk.load()
    saver, config = InMemorySaver(), {"configurable": {"thread_id": desk.talk}}
    graph = build(desk.specs, [[desk.ask(DRAFT, REFUND_DRAFT)]], saver)
    with monkeypatch.context() as broken:
        broken.setattr(ToolMessage, "__init__", _die)
        with pytest.raises(RuntimeError, match="died"):
            await graph.ainvoke({"messages": [("user", "go")]}, config)
    assert desk.script.count(DRAFT) == 1
    end = await graph.ainvoke(None, config)
    (text,) = [str(message.content) for message in end["messages"] if isinstance(message, ToolMessage)]
    assert read_result(text)["result"]["orderId"] == "A-1042"
    assert desk.script.count(DRAFT) == 1


def _die(*_: object, **__: object) -> None:
    raise RuntimeError("died")
