"""What the controls take away, to show what it is good for.

journal-off   claims and records are forgotten at each restart (the supervisor does it): a retry runs again
no-fence      a call in doubt is asked about at once: no sandbox is ended, no target has settled
"""

from __future__ import annotations

import time

from broker.fence import Fence, Fenced
from broker.model import CallRecord
from tests.chaos.process_driver import UnsandboxedDriver

CONTROLS = ("journal-off", "no-fence")


def take_away(control: str) -> None:
    """Change this process, before it becomes a broker, as its control says."""
    if control == "no-fence":
        Fence.__call__ = believe_at_once  # type: ignore[assignment, method-assign]
        UnsandboxedDriver.reap = reap_nothing  # type: ignore[assignment, method-assign]


async def believe_at_once(_: Fence, call: CallRecord) -> Fenced:
    """End nothing, and say that it was all over long ago."""
    return Fenced(call.call_id, time.monotonic() - 3600)


async def reap_nothing(_: UnsandboxedDriver) -> list[str]:
    """Leave what other epochs made alone."""
    return []
