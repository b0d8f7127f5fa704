"""User ids for sandboxes: no two of them have the same one, whichever driver makes them."""

from __future__ import annotations

import itertools
import secrets

_FIRST_UID = 100_000_000  # beyond every user and every subordinate range that distributions hand out
_UIDS = 1_900_000_000

# Where it starts is by chance: another broker on this host has other ids.
_numbers = itertools.count(secrets.randbelow(_UIDS))


def allocate_uid() -> int:
    """Give a user id that no other sandbox of this process has."""
    return _FIRST_UID + next(_numbers) % _UIDS
