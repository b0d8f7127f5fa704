"""The clauses of sandboxes/sandbox.py, each with its checker."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import sandboxes.sandbox
from tests.contracts import driver_clauses_call, driver_clauses_life, driver_clauses_limits
from tests.contracts.driver_trial import DriverFactory

Checker = Callable[[DriverFactory], Awaitable[None]]

CHECKERS: dict[str, Checker] = {
    name.removeprefix("check_"): found
    for module in (driver_clauses_life, driver_clauses_call, driver_clauses_limits)
    for name, found in vars(module).items()
    if name.startswith("check_")
}


def read_clauses() -> list[str]:
    """Read the names of the clauses that the protocol promises."""
    return re.findall(r"^    ([DS][0-9]+) +\S", sandboxes.sandbox.__doc__ or "", re.MULTILINE)
