"""A whole Toolcrib in a process of its own, for the benchmark: prints where it is, runs until stdin ends.

python -m bench.broker_server STATE_DIR CACHE_DIR
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from broker.dev import DevOptions, DevStack
from toolcrib.v1 import grants_pb2, grants_pb2_grpc

GRANTS = """
@id("bench") @targets("orders-db")
permit (
    principal == Agent::"bench",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/CreateRefundDraft"],
    resource == Environment::"dev"
);
"""


async def serve(state_dir: Path, cache_dir: Path) -> None:
    """Start everything, apply the grants, tell the address, and wait."""
    options = DevOptions(tenants=("shop",))
    async with DevStack(state_dir, cache_dir, options=options) as stack:
        await _apply_grants(stack)
        folders = {
            name: str(stack.profile(name, role).cert_path.parent)
            for name, role in (("bench", "agent"), ("stranger", "agent"), ("olga", "operator"))
        }
        print(json.dumps({"profiles": folders, "engine": stack.engine.base_url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _apply_grants(stack: DevStack) -> None:
    files = [grants_pb2.GrantFile(name="bench.cedar", text=GRANTS)]
    async with stack.profile("rob", "reviewer").connect_async() as channel:
        stub = grants_pb2_grpc.GrantsStub(channel)
        plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
        await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
