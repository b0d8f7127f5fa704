"""What a flood of output must not do to a good answer, and what it does to an engine that nobody drains.

The floods themselves are in families/bombs.py and families/stubborn.py.
"""

from __future__ import annotations

import asyncio

import pytest
import requests

from sandboxes.hardening import container_config
from tests.attacks.arena import Ground
from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine


async def test_gets_an_answer_of_the_whole_cap_through(ground: Ground) -> None:
    assert len(await ground.answer("answer = 'x' * (255 * 1024)")) == 255 * 1024


async def test_hangs_the_engine_where_the_stream_stays_open(obedient: Obedient) -> None:
    """The control: without init's caps and with a reader that stopped, the engine does not kill in time."""
    client = obedient.engine.client
    config = container_config(obedient.spec(), {"toolcrib.installation": obedient.installation})
    config["Entrypoint"] = ["/usr/bin/python3", "-c", "import os\nwhile True: os.write(1, bytes(65536))"]
    container = (await asyncio.to_thread(client.create_container_from_config, config, None))["Id"]
    reader, writer = await asyncio.open_unix_connection(str(obedient.engine.socket_path), limit=65536)
    writer.write(
        f"POST /containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: engine\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")  # and nothing after it
    await asyncio.to_thread(client.start, container)
    await asyncio.sleep(1.0)
    url = client._url("/containers/{0}", container)
    with pytest.raises(requests.Timeout):
        await asyncio.to_thread(client.delete, url, params={"force": True}, timeout=3.0)
    writer.transport.abort()
    await obedient.driver.end_container(container)
