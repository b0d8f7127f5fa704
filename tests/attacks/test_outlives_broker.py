"""Attack: a tool goes on after its deadline because nobody outside is there to end it.

The broker is played by a test that starts a sandbox and then does nothing: it neither stops it at the
deadline nor reads from it. What ends the tool is init alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandboxes.container_init import EXIT_DEADLINE, EXIT_STDIN_CLOSED, MAGIC, PREAMBLE
from sandboxes.conversation import Stream, frame_bytes
from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.hardening import container_config
from tests.parts.engine import Obedient
from toolcrib.handler.v1 import handler_pb2

pytestmark = pytest.mark.engine

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
while True:
    try: os.write(4, bytes(65536))
    except OSError: pass
"""


async def _abandon(obedient: Obedient, deadline_seconds: float) -> tuple[str, Stream]:
    """Start the stubborn tool without a driver that would end it."""
    engine, spec = obedient.engine, obedient.spec()
    labels = {"toolcrib.installation": obedient.installation, "toolcrib.epoch": "1"}
    config = container_config(spec, labels)
    container = (await asyncio.to_thread(engine.client.create_container_from_config, config, None))["Id"]
    stream = await Stream.attach(engine.socket_path, container)
    await asyncio.to_thread(engine.client.start, container)
    await stream.send(PREAMBLE.pack(MAGIC, int(deadline_seconds * 1000), 1 << 30, 1 << 16))
    await stream.send(frame_bytes(handler_pb2.BrokerFrame(start=obedient.start(STUBBORN))))
    return container, stream


async def _exit_code(engine: Engine, container: str) -> Any:
    waited = await asyncio.to_thread(engine.client.wait, container, timeout=20)
    return waited["StatusCode"]


async def test_ends_at_the_deadline_though_nobody_reads(obedient: Obedient, driver: DockerDriver) -> None:
    container, stream = await _abandon(obedient, 1.0)
    await asyncio.sleep(1.5)
    stream.close()
    assert await _exit_code(obedient.engine, container) == EXIT_DEADLINE
    assert await driver.reap() == [container]


async def test_ends_when_the_stream_closes(obedient: Obedient, driver: DockerDriver) -> None:
    container, stream = await _abandon(obedient, 600.0)
    await asyncio.sleep(0.3)
    stream.close()
    assert await _exit_code(obedient.engine, container) == EXIT_STDIN_CLOSED
    assert await driver.reap() == [container]


async def test_goes_on_where_init_is_not_ours(obedient: Obedient, driver: DockerDriver) -> None:
    """The control: the same program as PID 1 outlives its stream."""
    engine = obedient.engine
    config = container_config(obedient.spec(), {"toolcrib.installation": obedient.installation})
    config["Entrypoint"] = ["/usr/bin/python3", "-c", "import time; time.sleep(600)"]
    container = (await asyncio.to_thread(engine.client.create_container_from_config, config, None))["Id"]
    stream = await Stream.attach(engine.socket_path, container)
    await asyncio.to_thread(engine.client.start, container)
    stream.close()
    await asyncio.sleep(1.5)
    assert (await asyncio.to_thread(engine.client.inspect_container, container))["State"]["Running"]
    assert await driver.reap() == [container]
