"""Who may take how much of the memory that all sandboxes have together.

Any tenant may take all that nobody else needs. Of what is a tenant's fair share and not taken by it, half is
kept free as long as that tenant calls: another one's flood leaves it room to begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

_KEPT = 0.5


class Memory:
    """What sandboxes with calls are charged, by tenant."""

    def __init__(self, total_mib: int) -> None:
        self.total_mib = total_mib
        self._running: Counter[str] = Counter()

    @property
    def running_mib(self) -> int:
        """What all that have a call are charged."""
        return self._running.total()

    @property
    def free_mib(self) -> int:
        """What they leave."""
        return self.total_mib - self.running_mib

    def admits(self, tenant: str, mib: int, active: Collection[str]) -> bool:
        """Tell whether a tenant's sandbox may run.

        Args:
            tenant: Whose.
            mib: What it is charged.
            active: Tenants that have called lately.
        """
        left = self.free_mib - mib
        share = self.total_mib / max(1, len({*active, tenant}))
        if left < 0 or self._running[tenant] + mib <= share:
            return left >= 0
        kept = sum(max(0.0, share - self._running[other]) * _KEPT for other in active if other != tenant)
        return left >= kept

    def take(self, tenant: str, mib: int) -> None:
        """Charge a sandbox."""
        self._running[tenant] += mib

    def give_back(self, tenant: str, mib: int) -> None:
        """Charge it no more."""
        self._running[tenant] -= mib
        if not self._running[tenant]:
            del self._running[tenant]
