"""One example's tool run once: its fakes, its way out, its sandbox, as a call of the broker has them."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from broker.stages.http_access import make_access, make_injections
from broker.stages.start_frame import PROTOCOL_VERSION, Signing, credential_frames
from broker.stock import find_http
from broker.trial.bench import Bench
from broker.trial.fakes import Fake, run_fake
from credentials.injection import NotInjectable
from credentials.lease import Lease
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import Egress, EgressProcess
from sandboxes.nests import Nest
from sandboxes.outcome import RawOutcome, SandboxSpec
from sandboxes.proxy.access import HttpAccess, HttpTarget
from toolcrib.handler.v1 import handler_pb2
from tools.errors import BundleInvalid, Violation
from tools.examples import Example


class Ran(NamedTuple):
    """What a sandbox gave, and what the example's fakes printed."""

    outcome: RawOutcome
    fakes_log: str


class _WayOut(NamedTuple):
    """The egress process of one example, and the nest of its sandbox."""

    process: EgressProcess
    nest: Nest


async def run_once(bench: Bench, example: Example, request: bytes, leases: Sequence[Lease]) -> Ran:
    """Run a tool in a sandbox of its own; sandbox, way out and fakes are gone when it returns.

    Args:
        bench: Where.
        example: What is tried; it fits the bundle.
        request: Canonical bytes.
        leases: What was minted for it.

    Raises:
        SandboxError: No sandbox could be made.
        EgressError: The way out could not be made.
    """
    manifest, driver = bench.version.manifest, bench.driver
    deadline = bench.runtime(example).deadline_seconds
    accesses = _make_accesses(bench, example, leases)
    async with AsyncExitStack() as stack:
        fakes = _start_fakes(bench, example, stack)
        uid = driver.allocate_uid()
        way_out = await _make_way_out(bench, example, fakes, uid, stack)
        spec = SandboxSpec(
            image_id=bench.version.image_id,
            command=manifest.image.command,
            limits=manifest.limits,
            socket_dir=way_out.nest.folder if way_out else None,
            uid=uid,
            has_proxy=bool(accesses),
            take_door=way_out.nest.keep_door if way_out else None,
        )
        call_id = f"example-{uuid.uuid4().hex}"
        sandbox = await stack.enter_async_context(driver.create(spec, call_id))
        egress = None
        if way_out is not None:
            names = bench.runtime(example).targets
            opening = way_out.process.open(call_id, way_out.nest, names, accesses)
            egress = await stack.enter_async_context(opening)
            stack.push_async_callback(sandbox.end)  # before its way out is closed, as the broker does it
        start = _make_start(bench, example, request, leases, egress)
        outcome = await sandbox.run(start, deadline, Signing(call_id, leases))
        log = "\n".join(f"{name}: {text}" for name, fake in fakes.items() if (text := fake.read_log()))
    return Ran(outcome, log)


def _start_fakes(bench: Bench, example: Example, stack: AsyncExitStack) -> dict[str, Fake]:
    return {
        name: stack.enter_context(run_fake((bench.folder / target.fake).resolve(), target.settings))
        for name, target in example.targets.items()
        if name not in bench.real_targets
    }


async def _make_way_out(
    bench: Bench, example: Example, fakes: dict[str, Fake], uid: int, stack: AsyncExitStack
) -> _WayOut | None:
    declared, http = {}, {}
    for name in bench.runtime(example).targets:
        host, port = bench.real_targets.get(name) or ("127.0.0.1", fakes[name].port)
        played = example.targets.get(name)
        kind = bench.version.manifest.targets[name].kind
        declared[name] = TargetAddress(name, kind, host, port, dict(played.settings) if played else {})
        if played and played.origins:
            http[name] = HttpTarget(name, host, port, played.origins)
    if not declared:
        return None
    process = EgressProcess(declared, http=http)
    await process.start(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toolcrib-"))))
    stack.push_async_callback(process.stop)
    wish = find_http(bench.version.manifest)
    return _WayOut(process, stack.enter_context(process.nest(uid, wish)))


def _make_accesses(bench: Bench, example: Example, leases: Sequence[Lease]) -> list[HttpAccess]:
    """Say what the tool may ask for: what the manifest allows, as no grant narrows it here.

    Raises:
        BundleInvalid: What the example says of a credential cannot be added as the manifest wants it.
    """
    manifest = bench.version.manifest
    try:
        injections = make_injections(manifest, leases)
    except NotInjectable as error:
        raise BundleInvalid(
            [Violation(f"{example.file}: {example.name}", f"credentials: {error}")]
        ) from error
    return [
        make_access(manifest, name, injections.get(name), None)
        for name in manifest.http_targets(example.method)
    ]


def _make_start(
    bench: Bench, example: Example, request: bytes, leases: Sequence[Lease], egress: Egress | None
) -> handler_pb2.Start:
    context = handler_pb2.CallContext(
        call_id="example",
        tenant="example",
        environment="example",
        agent="example",
        idempotency_key=example.key,
        attempt=1,
        remaining_millis=int(bench.runtime(example).deadline_seconds * 1000),
    )
    return handler_pb2.Start(
        protocol_version=PROTOCOL_VERSION,
        context=context,
        method=example.method,
        request=request,
        credentials=credential_frames(bench.version.manifest, leases),
        targets=egress.handler_targets() if egress else {},
    )
