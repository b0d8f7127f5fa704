"""What a broker that starts again does about the calls of the one before."""

from __future__ import annotations

import uuid

from tests.e2e import grants
from tests.e2e.stack import Crib


def test_replays_across_a_restart(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        first = agent.call("mischief.v1.Mischief/Write", {"how": "fine"}, key=key)
    crib.run(crib.stack.restart_broker())
    crib.rest()
    with crib.caller() as agent:
        second = agent.call("mischief.v1.Mischief/Write", {"how": "fine"}, key=key)
    assert second.replayed
    assert second.result == first.result
