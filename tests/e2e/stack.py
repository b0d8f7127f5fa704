"""The whole of Toolcrib in a thread of its own, so that tests can be plain functions with real channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from broker.app import Hooks
from broker.client import Profile
from broker.dev import DevOptions, DevStack
from deploy.demo.leftovers import find_files
from tests.e2e.caller import ToolCaller
from toolcrib.v1 import grants_pb2, grants_pb2_grpc
from tools.catalogue import load_version
from tools.contract import Contract
from tools.source import compile_bundle

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
SHOP = ROOT / "tools" / "bundles" / "shop"
MISCHIEF = ROOT / "tests" / "bundles" / "mischief"


class Crib:
    """A running DevStack and the shortest ways to use it."""

    def __init__(self, stack: DevStack, loop: asyncio.AbstractEventLoop) -> None:
        self.stack = stack
        self._loop = loop
        self._profiles: dict[tuple[str, str, str], Profile] = {}
        self.contracts: dict[str, Contract] = {}
        for folder in stack.options.bundles:
            source = compile_bundle(folder)
            version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
            self.contracts |= version.contracts
        self.rest()

    def rest(self) -> None:
        """Note what is there while no call runs: files of the run directory, child processes."""
        self._files_at_rest, self._children_at_rest = self._files(), self._children()

    def _files(self) -> set[str]:
        """The files of the run directory, without the certificates that warm sandboxes wait with."""
        found = find_files(self.stack.settings.run_dir)
        return {file for file in found if not file.endswith("/.ca/ca.pem")}

    def _children(self) -> set[str]:
        """The processes that this one started and that still run, as "pid name"."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().rpartition(")")
                state, parent = rest.split()[:2]
                if int(parent) == os.getpid() and state != "Z":
                    found.add(name.replace(" (", " ", 1))
        return found

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the broker's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def profile(self, name: str, role: str = "agent", tenant: str = "shop") -> Profile:
        known = (name, role, tenant)
        if known not in self._profiles or self._profiles[known].address != self.stack.address:
            self._profiles[known] = self.stack.profile(name, role, tenant)
        return self._profiles[known]

    def caller(self, name: str = "refund-desk", tenant: str = "shop") -> ToolCaller:
        return ToolCaller(self.profile(name, tenant=tenant), self.contracts)

    def grant(self, text: str, *, tenant: str = "shop", destinations: str = "") -> None:
        """Replace the tenant's grants."""
        files = [grants_pb2.GrantFile(name="test.cedar", text=text)] if text else []
        if destinations:
            files.append(grants_pb2.GrantFile(name="destinations.toml", text=destinations))
        with self.profile("rob", "reviewer", tenant).connect() as channel:
            stub = grants_pb2_grpc.GrantsStub(channel)
            plan = stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
            stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))

    def leftovers(self) -> dict[str, object]:
        """What a call must not leave behind; empty values when all is clean."""
        stack = self.stack
        found = {
            "containers": self.run(stack.broker.fleet.leftovers()),
            "leases": stack.vault.list_leases(),
            "owed": stack.broker.debts.count,
            "roles": stack.postgres.count_v_roles(),
            "sessions": stack.postgres.count_v_sessions(),
            "files": sorted(self._files() - self._files_at_rest),
            "processes": sorted(self._children() - self._children_at_rest),
        }
        return {name: value for name, value in found.items() if value}


class CribThread:
    """Runs a DevStack's loop in a thread from start to end."""

    def __init__(
        self, state_dir: Path, cache_dir: Path, options: DevOptions, hooks: Hooks | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crib", daemon=True)
        self._stack = DevStack(state_dir, cache_dir, hooks=hooks, options=options)

    def __enter__(self) -> Crib:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._stack.__aenter__(), self._loop).result(300)
        return Crib(self._stack, self._loop)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.__aexit__(), self._loop).result(120)
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
