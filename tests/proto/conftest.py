"""A scripted broker, and both clients to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.proto.scripted_broker import Face, ScriptedBroker, plain_client


@pytest.fixture
async def broker() -> AsyncIterator[ScriptedBroker]:
    broker = ScriptedBroker()
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture(params=["sync", "async"])
def kind(request: Any) -> str:
    """Which client."""
    return str(request.param)


@pytest.fixture
async def client(kind: str, broker: ScriptedBroker) -> AsyncIterator[Face]:
    face = Face(plain_client(kind, broker.address))
    yield face
    await face.close()
