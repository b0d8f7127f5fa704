"""The git bundle in real sandboxes, with a real OpenSSH server behind the way out, without a broker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import EgressProcess
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxSpec
from tests.parts.sshd import USER, SshdTarget
from tests.sandboxes.egress.conftest import open_way_out
from toolcrib.handler.v1 import handler_pb2
from tools.manifest import Manifest

GIT = Path(__file__).parents[3] / "tools" / "bundles" / "git"
SERVICE = "git.v1.Branches"
PUSH = {
    "repository": "notes",
    "branch": "agents/fix-typo",
    "base": "main",
    "files": [{"path": "README.md", "content": "# Notes\n"}, {"path": "docs/a b.md".replace(" ", "-")}],
    "message": "Fix a typo",
}


@dataclass
class GitTool:
    """Calls the tool's methods, each in a sandbox of its own.

    Attributes:
        settings: What the operator declares of the target beside its address.
        cut: Ends the way out of the call that runs; there once one does.
    """

    image: str
    manifest: Manifest
    messages: Mapping[str, Any]
    driver: DockerDriver
    sshd: SshdTarget
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    log: str = ""

    def __post_init__(self) -> None:
        self.cut: Callable[[], Awaitable[None]]
        self.settings = {"host_key": self.sshd.host_key, "repository": "notes.git"}

    async def call(self, method: str, request: dict[str, Any], key: str = "") -> dict[str, Any]:
        """The response, or {"code": …, "effect": …} of a failure."""
        outcome = await self.run(method, request, key)
        if outcome.kind is OutcomeKind.FAILURE and outcome.failure is not None:
            effect = handler_pb2.EffectDone.Name(outcome.failure.effect).removeprefix("EFFECT_")
            return {"code": outcome.failure.code, "effect": effect}
        assert outcome.kind is OutcomeKind.RESULT, f"{outcome.kind} {outcome.detail}\n{outcome.log}"
        response = self.messages[f"git.v1.{method}Response"].FromString(outcome.response)
        return json_format.MessageToDict(response)

    async def push(self, key: str = "", **changes: Any) -> dict[str, Any]:
        """Push a branch under a key; a new one where none is given."""
        return await self.call("PushBranch", PUSH | changes, key or secrets.token_hex(32))

    async def run(self, method: str, request: dict[str, Any], key: str = "") -> RawOutcome:
        """The raw outcome of one call."""
        message = json_format.ParseDict(request, self.messages[f"git.v1.{method}Request"]())
        purpose = "push" if method == "PushBranch" else "read"
        target = TargetAddress("notes", "ssh", "127.0.0.1", self.sshd.port, self.settings)
        egress_process = EgressProcess({"notes": target})
        await egress_process.start(self.folder)
        self.cut = egress_process.stop
        try:
            uid = self.driver.allocate_uid()
            spec = SandboxSpec(
                self.image, tuple(self.manifest.image.command), self.manifest.limits, None, uid
            )
            async with open_way_out(egress_process, "call-1", uid, ["notes"]) as egress:
                spec = replace(spec, socket_dir=egress.socket_dir)
                async with self.driver.create(spec, "call-1") as sandbox:
                    start = self._start(method, message, key, purpose)
                    for name, value in egress.handler_targets().items():
                        start.targets[name].CopyFrom(value)
                    outcome = await sandbox.run(start, 30.0)
        finally:
            await egress_process.stop()
        self.log = outcome.log
        return outcome

    def _start(self, method: str, message: Any, key: str, purpose: str) -> handler_pb2.Start:
        login = self._login(purpose)
        return handler_pb2.Start(
            protocol_version=1,
            method=f"{SERVICE}/{method}",
            request=message.SerializeToString(deterministic=True),
            context=handler_pb2.CallContext(
                call_id="call-1", tenant="shop", agent="fixer", idempotency_key=key, remaining_millis=30_000
            ),
            credentials={f"notes-{purpose}": handler_pb2.Credential(ssh_login=login)},
        )

    def _login(self, purpose: str) -> handler_pb2.SshLogin:
        key = self.sshd.certify(self.folder.parent, [f"force-command={self.sshd.forced_command(purpose)}"])
        certificate = key.with_name(f"{key.name}-cert.pub")
        return handler_pb2.SshLogin(
            username=USER, private_key=key.read_text(), certificate=certificate.read_text()
        )


async def push_at_once(tool: GitTool, count: int, **changes: Any) -> list[dict[str, Any]]:
    """The same push several times at once, each from a sandbox of its own."""
    tools = [replace(tool, folder=tool.folder.parent / f"run-{number}") for number in range(count)]
    return list(await asyncio.gather(*(one.push(**changes) for one in tools)))
