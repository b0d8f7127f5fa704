"""What can be wrong with a message, a result or a bundle, with every violation at once.

ContractError
├── MessageMalformed     the bytes or the JSON are no message of the type
├── MessageInvalid       violations, by field
├── UnknownFields        fields (or enum numbers) that this version does not know
└── BundleInvalid        a bundle breaks a rule of registration; violations, by file or field
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Part = TypeVar("Part")
Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: where ("amount.minor_units", "tool.yaml: limits.memory"), what and the remedy.

    Attributes:
        code: The rule's name in `tools.codes`; empty for what is wrong with a message.
        remedy: The part of the description that says what to do; empty where that is the code's own.
    """

    field: str
    description: str
    code: str = dataclasses.field(default="", compare=False)
    remedy: str = dataclasses.field(default="", compare=False)


def breach(code: str, where: str, problem: str, remedy: str = "") -> Violation:
    """Make the violation of a rule of registration; its description is "problem: remedy"."""
    return Violation(where, f"{problem}: {remedy}" if remedy else problem, code, remedy)


class ContractError(Exception):
    """Base of what this package raises; carries every violation found."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class MessageMalformed(ContractError):
    """The bytes or the JSON are no message of the type."""


class MessageInvalid(ContractError):
    """The message breaks rules of its contract."""


class UnknownFields(ContractError):
    """The message has fields that this version of the contract does not know."""


class BundleInvalid(ContractError):
    """A bundle breaks a rule of registration. Nothing was registered."""


def collect(problems: list[Violation], read: Callable[[Source], Part], source: Source) -> Part | None:
    """Read one part of a bundle, or keep its violations, so that those of the other parts come with them."""
    try:
        return read(source)
    except BundleInvalid as error:
        problems.extend(error.violations)
        return None
