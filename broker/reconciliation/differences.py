"""What can differ between our record and Vault's log."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """Kinds of difference, in words for a table."""

    NOT_IN_VAULTS_LOG = "not in Vault's log"
    NOT_IN_OUR_RECORD = "not in our record"
    END_NOT_IN_VAULTS_LOG = "end not in Vault's log"
    END_NOT_IN_OUR_RECORD = "end not in our record"
    OTHER_LABEL = "other label"
    OTHER_USE = "other use"
    NO_RESPONSE = "no response"
    NO_REQUEST = "no request"
    CHANGED = "changed line"
    UNREADABLE = "unreadable line"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that somebody has to look at.

    Attributes:
        detail: What is to be looked at, in a sentence. Holds no secret: neither log does.
        line: Of Vault's log, counted from 1 over all its files; 0 for none.
        record: Sequence in our chain; 0 for none.
    """

    kind: Kind
    detail: str
    call_id: str = ""
    lease_id: str = ""
    accessor: str = ""
    line: int = 0
    record: int = 0


Report = Callable[[Difference], None]
