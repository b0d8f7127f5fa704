"""Tools for LangGraph (https://langchain-ai.github.io/langgraph), version 1: a node that runs them.

    graph.add_node("tools", tool_node_of(specs))

The tools are LangChain's (`toolcrib.adapters.langchain`): with a checkpointer and a `thread_id`, a node that
is run again after a crash sends the same keys, and a write that had happened is answered and not repeated.
"""

from __future__ import annotations

from collections.abc import Iterable

from toolcrib.adapters.extras import missing
from toolcrib.adapters.tool_spec import ToolSpec

try:
    from langgraph.prebuilt import ToolNode

    from toolcrib.adapters.langchain import tools_of
except ImportError as error:
    raise missing("langchain", error) from error

__all__ = ["tool_node_of", "tools_of"]


def tool_node_of(specs: Iterable[ToolSpec], name: str = "tools") -> ToolNode:
    """Make the node. A mistake of the program is raised, and not told to the model as if it were its own."""
    return ToolNode(tools_of(specs), name=name, handle_tool_errors=False)
