"""One thing that the doctor looked at."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and how to mend it where it needs mending."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


def fine(subject: str, text: str) -> Finding:
    """Say that a part is as it should be."""
    return Finding(subject, Level.OK, text)


def warn(subject: str, text: str, remedy: str) -> Finding:
    """Say what will need attention."""
    return Finding(subject, Level.WARNING, text, remedy)


def bad(subject: str, text: str, remedy: str) -> Finding:
    """Say what is wrong."""
    return Finding(subject, Level.PROBLEM, text, remedy)
