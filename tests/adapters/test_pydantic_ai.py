"""pydantic-ai with its own FunctionModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from tests.adapters.contract import AdapterContract, Ask, Offered
from toolcrib.adapters import ToolSpec
from toolcrib.adapters.pydantic_ai import tools_of


class PydanticAiDriver:
    """Runs an agent whose model asks for what the test says."""

    async def run(
        self, specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        left = list(turns)
        texts: list[str] = []

        def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            parts: Sequence[Any] = messages[-1].parts
            texts.extend(part.model_response_str() for part in parts if isinstance(part, ToolReturnPart))
            if not left:
                return ModelResponse([TextPart("done")])
            return ModelResponse([ToolCallPart(ask.tool, ask.arguments, ask.id) for ask in left.pop(0)])

        agent = Agent(FunctionModel(answer), tools=tools_of(specs))
        await agent.run("go", conversation_id=conversation)
        return texts

    async def offer(self, specs: Sequence[ToolSpec]) -> list[Offered]:
        seen: list[Offered] = []

        def answer(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            seen.extend(
                Offered(tool.name, tool.description or "", tool.parameters_json_schema)
                for tool in info.function_tools
            )
            return ModelResponse([TextPart("done")])

        await Agent(FunctionModel(answer), tools=tools_of(specs)).run("go")
        return seen


class TestPydanticAi(AdapterContract):
    driver = PydanticAiDriver()
