"""A whole Toolcrib in a process of its own, for the benchmarks: prints where it is, runs until stdin ends.

    python -m bench.broker_server STATE_DIR CACHE_DIR [SETTINGS]

Registered are the shop (whose tools log in at PostgreSQL) and `bench/bundles/echo` (which wants nothing), for
two tenants. SETTINGS are more lines of toolcrib.toml. For each line on stdin it waits until nothing of an
earlier call is left and prints what the pool holds. "hold" stops the making of sandboxes before, "go" lets
it go on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from broker.dev import SAMPLE_BUNDLES, DevOptions, DevStack
from broker.heap import settle_heap
from toolcrib.v1 import grants_pb2, grants_pb2_grpc

ECHO = Path(__file__).parent / "bundles" / "echo"
TENANTS = ("shop", "rival")
GRANTS = """
@id("bench") @targets("orders-db")
permit (
    principal == Agent::"bench",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/CreateRefundDraft"],
    resource == Environment::"dev"
);
@id("echo")
permit (
    principal == Agent::"bench",
    action == Action::"echo.v1.Echo/Say",
    resource == Environment::"dev"
);
"""


async def serve(state_dir: Path, cache_dir: Path, settings: str) -> None:
    """Start everything, apply the grants, tell the address, and wait."""
    options = DevOptions(tenants=TENANTS, bundles=(*SAMPLE_BUNDLES, ECHO), settings_extra=settings)
    async with DevStack(state_dir, cache_dir, options=options) as stack:
        for tenant in TENANTS:
            await _apply_grants(stack, tenant)
        folders = {
            name: str(stack.profile(person, role, tenant).cert_path.parent)
            for name, person, role, tenant in (
                ("bench", "bench", "agent", "shop"),
                ("rival", "bench", "agent", "rival"),
                ("stranger", "stranger", "agent", "shop"),
                ("olga", "olga", "operator", "shop"),
            )
        }
        settle_heap()  # as `serve` does
        print(json.dumps({"profiles": folders, "engine": stack.engine.base_url}), flush=True)
        pool = stack.broker.pool
        terms = {"hold": replace(pool.terms, makers=0), "go": pool.terms}
        while line := await asyncio.to_thread(sys.stdin.readline):
            pool.terms = terms.get(line.strip(), pool.terms)
            pool.schedule()
            await stack.broker.fleet.leftovers()  # waits until the engine has removed what is dead
            print(json.dumps({"idle": _count_idle(stack), "taken": _count_taken(stack)}), flush=True)


def _count_idle(stack: DevStack) -> dict[str, int]:
    """How many sandboxes wait, by tenant and bundle."""
    shelves = stack.broker.pool.shelves
    return {f"{kind.tenant} {kind.tool.split()[0]}": len(shelf.idle) for kind, shelf in shelves.items()}


def _count_taken(stack: DevStack) -> dict[str, float]:
    """How many sandboxes calls got so far, by whether they were warm."""
    found: dict[str, float] = {}
    for metric in stack.broker.metrics.registry.collect():
        for sample in metric.samples:
            if sample.name == "toolcrib_sandboxes_taken_total":
                found[sample.labels["found"]] = found.get(sample.labels["found"], 0) + sample.value
    return found


async def _apply_grants(stack: DevStack, tenant: str) -> None:
    files = [grants_pb2.GrantFile(name="bench.cedar", text=GRANTS)]
    async with stack.profile("rob", "reviewer", tenant).connect_async() as channel:
        stub = grants_pb2_grpc.GrantsStub(channel)
        plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
        await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
