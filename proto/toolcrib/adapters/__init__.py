"""Tools for agent frameworks: one `ToolSpec` a tool, and a module a framework that makes its tools.

    from toolcrib.adapters.pydantic_ai import tools_of      pip install "toolcrib[pydantic-ai]"
    from toolcrib.adapters.langchain import tools_of        pip install "toolcrib[langchain]"

This package itself needs grpcio and protobuf only; each module imports its framework when it is imported.
"""

from toolcrib.adapters.tool_calls import Terms, ToolAnswer
from toolcrib.adapters.tool_spec import ToolSpec, key_of, load_tools, load_tools_async

__all__ = ["Terms", "ToolAnswer", "ToolSpec", "key_of", "load_tools", "load_tools_async"]
