"""A running broker for clients and adapters: everything real but the sandbox, whose tool is what a test says.

The tools are the shop's. `ToolScript` plays their handlers: by default it answers as they would; a test lets
it stall, fail or say something hostile. It counts what ran.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format, message_factory

from broker.app import Hooks
from broker.dev import DevOptions
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxSpec
from tests.e2e.lean_stack import LeanStack, UnsandboxedTool, UnsandboxedTools
from tests.e2e.stack import SHOP, CribThread
from toolcrib.handler.v1 import handler_pb2
from tools.catalogue import load_version
from tools.contract import Contract
from tools.source import compile_bundle

LOOKUP = "shop.v1.Orders/LookupOrder"
DRAFT = "shop.v1.Orders/CreateRefundDraft"
REFUND = "shop.v1.Orders/IssueRefund"
AGENT = "refund-desk"

GRANTS = """
@id("desk") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/CreateRefundDraft"],
    resource == Environment::"dev"
);
"""
ORDER = {"orderId": "A-1042"}
MONEY = {"minorUnits": "100", "currency": "EUR"}
REFUND_DRAFT = {"orderId": "A-1042", "amount": MONEY, "comment": "arrived broken"}


class ToolScript:
    """What the shop's handlers do.

    Attributes:
        runs: The requests of the tools that ran, as (method, JSON).
        note: What the customer wrote with the order.
        failure: What the tools fail with, instead of an answer.
        leak: Whether the customer's note holds the password that was minted for the call.
        passwords: What was minted for the calls.
    """

    def __init__(self) -> None:
        source = compile_bundle(SHOP)
        image = "sha256:" + "0" * 64
        self._contracts = load_version(source.descriptor_set, source.manifest_yaml, image).contracts
        self._go_on = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Answer as the shop would, at once."""
        self.runs: list[tuple[str, dict[str, Any]]] = []
        self.note = "Please ring twice."
        self.failure: handler_pb2.Failure | None = None
        self.leak = False
        self.passwords: list[str] = []
        self._go_on.set()

    def stall(self) -> Callable[[], None]:
        """Let tools wait; returns what lets them go on."""
        self._go_on.clear()
        return self._go_on.set

    def count(self, method: str) -> int:
        """How often a tool ran."""
        return sum(ran == method for ran, _ in self.runs)

    async def __call__(self, start: handler_pb2.Start) -> RawOutcome:
        """Run a tool."""
        contract = self._contracts[start.method]
        request = json_format.MessageToDict(_message(contract.request_descriptor, start.request))
        self.runs.append((start.method, request))
        logins = [found.username_password.password for found in start.credentials.values()]
        self.passwords += logins
        while not self._go_on.is_set():
            await asyncio.sleep(0.01)
        if self.failure is not None:
            return RawOutcome(OutcomeKind.FAILURE, failure=self.failure)
        result = self._answer(start.method, request, "".join(logins) if self.leak else "")
        return RawOutcome(OutcomeKind.RESULT, response=_encode(contract, result))

    def _answer(self, method: str, request: dict[str, Any], leaked: str) -> dict[str, Any]:
        order = request.get("orderId", "")
        if method == LOOKUP:
            customer = {"customerId": "C-7", "name": "Ada", "note": self.note + leaked}
            return {"order": {"orderId": order, "total": MONEY, "customer": customer}}
        if method == DRAFT:
            return {"draftId": f"D-{len(self.runs)}", "orderId": order, "amount": request["amount"]}
        return {}


def _message(descriptor: Any, raw: bytes) -> Any:
    return message_factory.GetMessageClass(descriptor).FromString(raw)


def _encode(contract: Contract, result: dict[str, Any]) -> bytes:
    kind = message_factory.GetMessageClass(contract.response_descriptor)
    return bytes(json_format.ParseDict(result, kind()).SerializeToString())


class _ScriptedTool(UnsandboxedTool):
    """One call's tool."""

    def __init__(self, script: ToolScript, uid: int) -> None:
        super().__init__(_no_tool, uid)
        self._script = script

    async def run(self, start: handler_pb2.Start, *_: object) -> RawOutcome:
        return await self._script(start)


async def _no_tool(_start: handler_pb2.Start) -> bytes:
    raise AssertionError("the script runs instead")


class _ScriptedTools(UnsandboxedTools):
    def __init__(self, script: ToolScript) -> None:
        super().__init__(_no_tool)
        self._script = script

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, _call_id: str) -> AsyncIterator[UnsandboxedTool]:
        tool = _ScriptedTool(self._script, spec.uid)
        try:
            yield tool
        finally:
            await tool.end()


class ScriptedThread(CribThread):
    """Runs the broker in a thread."""

    def __init__(self, folder: Path, script: ToolScript) -> None:
        options = DevOptions(bundles=(SHOP,), tenants=("shop",))
        super().__init__(folder, folder, options)
        hooks = Hooks(driver_factory=lambda _settings, _epoch: _ScriptedTools(script))
        self._stack = LeanStack(folder, hooks=hooks, options=options)
