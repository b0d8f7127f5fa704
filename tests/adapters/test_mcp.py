"""The MCP server, over both transports and in both forms of the protocol, with the SDK's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mcp import MCPError, types

from tests.adapters.contract import AdapterContract, Ask, Desk
from tests.adapters.crib import AGENT, DRAFT, LOOKUP, REFUND
from tests.adapters.mcp_hosts import HostDriver, Hosts
from tests.e2e.stack import Crib

DESK_TOOLS = tuple(word for tool in (LOOKUP, DRAFT, REFUND) for word in ("--tools", tool))


@pytest.fixture(scope="module")
def hosts(scripted_crib: Crib, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    hosts = Hosts(scripted_crib.profile(AGENT).cert_path.parent, tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.close()


class McpContract(AdapterContract):
    """The suite, where the tools are made by the server and not by the test."""

    takes_specs = False
    transport: str
    mode: str

    @pytest.fixture(autouse=True)
    def _serve(self, desk: Desk, hosts: Hosts) -> None:
        load = desk.load

        async def load_for(**terms: Any) -> Any:
            patience = ("--timeout", str(terms["timeout"])) if "timeout" in terms else ()
            self.driver = HostDriver(hosts, self.transport, self.mode, (*DESK_TOOLS, *patience))
            return await load(**terms)

        desk.load = load_for  # type: ignore[method-assign]

    async def test_gives_a_tool_that_is_gone_as_a_refusal(self, desk: Desk):
        """MCP has an error of its own for a name that the server does not list."""
        await desk.load()
        with pytest.raises(MCPError, match="Unknown tool: gone") as error:
            await self.run(desk, [Ask("gone", {})])
        assert error.value.code == types.INVALID_PARAMS


class TestMcpStdio(McpContract):
    transport, mode = "stdio", "legacy"


class TestMcpHttp(McpContract):
    transport, mode = "http", "auto"
