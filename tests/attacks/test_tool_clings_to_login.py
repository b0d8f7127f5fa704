"""A hostile tool uses its login so that it would outlive the call: gone two seconds later, whatever it did.

The control is in test_login_outlives_call.py: with Vault's default statements the same tricks hold.
"""

from __future__ import annotations

import time

import pytest

from tests.e2e import grants
from tests.e2e.stack import Crib

TRICKS = ("transaction", "temp_table", "large_object", "default_privileges")


@pytest.mark.parametrize("trick", TRICKS)
def test_login_and_sessions_are_gone(crib: Crib, trick: str):
    crib.grant(grants.MISCHIEF)
    with crib.caller() as agent:
        reply = agent.call("mischief.v1.Mischief/Cling", {"how": trick})
    assert reply.code == "OK"
    time.sleep(2)
    assert crib.stack.postgres.count_v_roles() == 0
    assert crib.stack.postgres.count_v_sessions() == 0
    assert crib.stack.postgres.query("SELECT 1 FROM effects WHERE idempotency_key = 'late'") == []
