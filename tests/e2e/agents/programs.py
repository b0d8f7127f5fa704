"""The two agents as the tests start them, each on code from the exported client view only."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.client import Profile
from deploy.demo.agent_process import (
    AGENTS,
    AgentProcess,
    Identity,
    generate_code,
    node_command,
    open_agent,
    python_command,
)
from tests.e2e.stack import Crib
from tests.parts import REAL_PARTS, without
from toolcrib.v1 import broker_pb2, broker_pb2_grpc

KINDS = [pytest.param("python"), pytest.param("node", marks=pytest.mark.node)]


@asynccontextmanager
async def open_program(
    kind: str, crib: Crib, folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[AgentProcess]:
    """Export the client view, generate code from it, and start an agent with a certificate only."""
    profile = crib.profile("refund-desk")
    generated = await generate_code(await asyncio.to_thread(export_view, profile), folder)
    identity = Identity(profile.ca_path, profile.cert_path, profile.key_path)
    command, code = choose_program(kind, generated)
    async with open_agent(command, crib.stack.address, identity, code, environment) as agent:
        yield agent


def export_view(profile: Profile) -> bytes:
    """Fetch the client view as an agent's author would."""
    with profile.connect() as channel:
        described = broker_pb2_grpc.BrokerStub(channel).DescribeTool(
            broker_pb2.DescribeToolRequest(name="shop.v1.Orders/LookupOrder")
        )
    return bytes(described.client_descriptor_set)


def choose_program(kind: str, generated: Path) -> tuple[tuple[str, ...], Path]:
    """Say how an agent is started and what it loads; installs the Node agent's locked packages once."""
    if kind == "python":
        return python_command(), generated / "python"
    if without("node"):
        pytest.skip("needs node")
    folder = AGENTS / "node_agent"
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci", "--loglevel=error"], cwd=folder, check=True)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    REAL_PARTS.append(f"Node.js {version.stdout.strip()}")
    return node_command(), generated / "proto"
