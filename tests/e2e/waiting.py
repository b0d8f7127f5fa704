"""Waits for what a test is about, instead of guessing how long it takes."""

from __future__ import annotations

import time

from tests.e2e.stack import Crib


def wait_for_container(crib: Crib, tenant: str = "shop") -> None:
    """Wait until the tool of a tenant's newest call has been dispatched."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        calls = crib.run(crib.stack.broker.store.list_calls(tenant, page_size=1)).items
        if calls and calls[0].state == "DISPATCHED":
            return
        time.sleep(0.02)
    raise AssertionError("the tool was never dispatched")
