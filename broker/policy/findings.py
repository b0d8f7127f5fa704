"""What is wrong with grant files: where (file, line, policy), what, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from broker.errors import Refused
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation


class GrantsInvalid(Refused):
    """Grant files that do not check. Nothing was applied; `violations` holds every finding."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        found = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:3])
        more = f"; and {len(violations) - 3} more" if len(violations) > 3 else ""
        super().__init__(
            Reason.REASON_GRANTS_INVALID,
            f"the grant files do not check, nothing was applied: {found}{more}",
            violations=violations,
        )


def finding(place: str, description: str, policy_id: str = "") -> Violation:
    """Make a violation at "file:line", with the policy's id where it has one."""
    return Violation(f'{place} (policy "{policy_id}")' if policy_id else place, description)


def name_nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is probably meant, or which there are; ready to follow a semicolon."""
    names = sorted(known)
    if not names:
        return "there are none"
    lowered = {candidate.lower(): candidate for candidate in names}
    tail = [candidate for candidate in names if candidate.lower().endswith(name.lower())] if name else []
    close = tail or difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{lowered[close[0].lower()]}"?'
    shown = ", ".join(names[:8])
    return f"known are {shown}" + (", …" if len(names) > 8 else "")
