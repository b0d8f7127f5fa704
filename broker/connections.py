"""What a call connected to, as the audit says it: few numbers a target, whatever the tool did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandboxes.egress.records import ConnectionRecord, Outcome

NO_TARGET = "-"
"""Stands for what was asked of no target; no target can have this name."""

_REFUSED = frozenset({Outcome.REFUSED, Outcome.PROTOCOL_REFUSED})


def summarize_connections(records: Sequence[ConnectionRecord], dropped: int) -> Mapping[str, object]:
    """Say by target how many connections there were, how many were refused, and how much went each way.

    What is zero is left out, but for the count. Of what is not kept one by one only the number is known.
    """
    targets: dict[str, dict[str, int]] = {}
    lost = 0
    for record in records:
        if record.outcome is Outcome.LOST:
            lost += 1
            continue
        sums = targets.setdefault(record.target or NO_TARGET, {"count": 0})
        for name, amount in _amounts(record).items():
            if amount:
                sums[name] = sums.get(name, 0) + amount
    totals = {"targets": targets, "not_kept": dropped, "lost": lost}
    return {name: value for name, value in totals.items() if value}


def _amounts(record: ConnectionRecord) -> Mapping[str, int]:
    return {
        "count": 1,
        "refused": int(record.outcome in _REFUSED),
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "injected": int(bool(record.injected)),
        "stripped": record.stripped,
    }
