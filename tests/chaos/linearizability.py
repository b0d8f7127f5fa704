"""Is a history of concurrent operations the history of some order, one at a time? A small checker.

Each operation has the moment it was asked and the moment it was answered (infinity when it never was). A
history is linearizable when each operation can be given one moment between the two so that, in the order of
those moments, the model gives every answer that was seen. Keys are independent of each other, so each is
checked by itself; the search is Wing and Gong's, with Lowe's memory of (done, state).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

State = int
UNSET: State = 0


@dataclass(frozen=True)
class Operation:
    """One call of one caller.

    Attributes:
        asked, answered: On one clock; an answer that never came is at infinity.
        answer: What came back; None when nothing did, so that it may have happened or not.
    """

    key: str
    asked: float
    answered: float = math.inf
    answer: Any = None


Model = Callable[[State, Any], tuple[State, bool]]
"""(state, answer) → (state after it, whether a correct register may give this answer)."""


def write_once(state: State, answer: int) -> tuple[State, bool]:
    """A register that the first write sets and that gives every later one the same answer."""
    return (answer, True) if state == UNSET else (state, answer == state)


def find_violation(history: Iterable[Operation], model: Model = write_once) -> str:
    """Name a key whose history no order explains; "" when there is none."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.answer is not None:  # one without an answer constrains no write-once register
            by_key[operation.key].append(operation)
    return next((key for key, part in by_key.items() if not is_linearizable(part, model)), "")


def is_linearizable(operations: Sequence[Operation], model: Model = write_once) -> bool:
    """Search for an order of the operations of one key."""
    ordered = sorted(operations, key=lambda operation: operation.asked)
    seen: set[tuple[int, State]] = set()
    paths: list[tuple[int, State]] = [(0, UNSET)]
    everything = (1 << len(ordered)) - 1
    while paths:
        done, state = paths.pop()
        if done == everything:
            return True
        for index in _next_ones(ordered, done):
            after, allowed = model(state, ordered[index].answer)
            step = (done | 1 << index, after)
            if allowed and step not in seen:
                seen.add(step)
                paths.append(step)
    return False


def _next_ones(ordered: Sequence[Operation], done: int) -> Iterable[int]:
    """The operations that may come next: asked before any that is left was answered."""
    left = [index for index in range(len(ordered)) if not done >> index & 1]
    first_answer = min(ordered[index].answered for index in left)
    return (index for index in left if ordered[index].asked <= first_answer)
