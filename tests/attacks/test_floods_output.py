"""Attack: a tool writes without end, to fill memory or disk, or to hang the engine, whose kill and inspect
wait for a reader that does not drain.
"""

from __future__ import annotations

import asyncio

import pytest
import requests

from sandboxes.conversation import Stream
from sandboxes.docker_driver import DockerDriver
from sandboxes.hardening import container_config
from sandboxes.outcome import OutcomeKind
from tests.parts.engine import Obedient, answer_of

pytestmark = pytest.mark.engine


async def test_is_ended_at_its_output_cap_by_endless_progress(obedient: Obedient) -> None:
    outcome = await obedient.run("while True: context.progress('x' * 200)")
    assert outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE


async def test_is_ended_for_a_frame_that_claims_too_much(obedient: Obedient) -> None:
    outcome = await obedient.run("import os, time; os.write(4, b'\\xff' * 4); time.sleep(30)")
    assert outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE


async def test_gets_a_response_of_the_whole_cap_through(obedient: Obedient) -> None:
    assert len(await obedient.answer("answer = 'x' * (255 * 1024)")) == 255 * 1024


async def test_gets_its_log_cut_and_its_answer_through(obedient: Obedient) -> None:
    program = "import sys\nfor _ in range(2000): sys.stderr.write('y' * 1000)\nanswer = 'done'"
    outcome = await obedient.run(program)
    assert answer_of(outcome) == "done"
    assert len(outcome.log) < obedient.limits.log_kib * 1024 + 100


async def test_does_not_hold_up_its_end_by_an_endless_log(obedient: Obedient, driver: DockerDriver) -> None:
    outcome = await obedient.run("import os\nwhile True: os.write(2, b'z' * 65536)", 1.0)
    assert outcome.kind is OutcomeKind.TIMED_OUT
    assert await driver.leftovers() == []


async def test_hangs_the_engine_where_the_stream_stays_open(obedient: Obedient, driver: DockerDriver) -> None:
    """The control: without init's caps and with a reader that stopped, the engine does not kill in time."""
    client = obedient.engine.client
    config = container_config(obedient.spec(), {"toolcrib.installation": obedient.installation})
    config["Entrypoint"] = ["/usr/bin/python3", "-c", "import os\nwhile True: os.write(1, bytes(65536))"]
    container = (await asyncio.to_thread(client.create_container_from_config, config, None))["Id"]
    stream = await Stream.attach(obedient.engine.socket_path, container)
    await asyncio.to_thread(client.start, container)
    await asyncio.sleep(1.0)
    url = client._url("/containers/{0}", container)
    with pytest.raises(requests.Timeout):
        await asyncio.to_thread(client.delete, url, params={"force": True}, timeout=3.0)
    stream.close()
    await driver.reap()
