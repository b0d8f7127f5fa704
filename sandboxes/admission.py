"""Who may wait for a sandbox, and whose is made next: fair by tenant, refused at once where it is hopeless.

Makers serve tenants in turn, so what one tenant asks for delays another's next sandbox by one making at most.
A call's wait is told from that order before it waits. One that would wait too long is refused then and not
later, with the time after which asking again can help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandboxes.outcome import SandboxError
from sandboxes.pool_stock import Shelf

_SHORTEST_RETRY_SECONDS = 0.1


class NoPlace(SandboxError):
    """All sandboxes that may be are taken; nothing happened.

    Attributes:
        retry_after_seconds: When asking again can help.
    """

    def __init__(self, text: str, retry_after_seconds: float) -> None:
        super().__init__(text)
        self.retry_after_seconds = max(retry_after_seconds, _SHORTEST_RETRY_SECONDS)


class Turns:
    """Whose turn it is: the tenant that was served least recently, and of its kinds the same."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._count = 0

    def choose(self, shelves: Iterable[Shelf]) -> Shelf | None:
        """Choose the shelf to serve next; None of none."""
        return min(
            shelves, key=lambda shelf: (self._served.get(shelf.kind.tenant, 0), shelf.begun), default=None
        )

    def note(self, shelf: Shelf) -> None:
        """Note that a shelf was served."""
        self._count += 1
        self._served[shelf.kind.tenant] = shelf.begun = self._count

    def forget(self, tenants: Iterable[str]) -> None:
        """Keep no other tenants than these."""
        self._served = {tenant: self._served[tenant] for tenant in tenants if tenant in self._served}


def find_wait(tenant: str, waiting: Mapping[str, int], free: int, makers: int, make_seconds: float) -> float:
    """Tell how many seconds a call would wait until its sandbox is begun.

    Args:
        tenant: Whose call.
        waiting: Calls by tenant that wait and for which none is begun.
        free: Makers that have nothing to do.
        makers: All of them.
        make_seconds: How long one making takes.
    """
    own = waiting.get(tenant, 0)
    # In turn: before its own next one each other tenant gets as many as this one has in front, and one more.
    ahead = own + sum(min(count, own + 1) for name, count in waiting.items() if name != tenant)
    if ahead < free:
        return 0.0
    # Those in the making are half done on average.
    return (ahead - free + 0.5) * make_seconds / makers


def count_waiting(shelves: Iterable[Shelf]) -> dict[str, int]:
    """Count by tenant the calls that wait and for which none is begun."""
    found: dict[str, int] = {}
    for shelf in shelves:
        if shelf.uncovered:
            found[shelf.kind.tenant] = found.get(shelf.kind.tenant, 0) + shelf.uncovered
    return found
