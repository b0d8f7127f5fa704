"""What can be wrong with a message, a result or a bundle, with every violation at once.

ContractError
├── MessageMalformed     the bytes or the JSON are no message of the type
├── MessageInvalid       violations, by field
├── UnknownFields        fields (or enum numbers) that this version does not know
└── BundleInvalid        a bundle breaks a rule of registration; violations, by file or field
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: where ("amount.minor_units", "tool.yaml: limits.memory"), what and the remedy."""

    field: str
    description: str


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
