"""How the proxy says no, and how it says what became of an exchange."""

from __future__ import annotations

import enum

from sandboxes.egress.records import Outcome
from tools.http_rules import Check

CHECK_HEADER = "toolcrib-egress"


class Hurdle(enum.StrEnum):
    """Which check of the proxy's own refused; those of the rules are in `tools.http_rules.Check`."""

    REQUEST = "REQUEST"
    """It is no request that may be read."""
    SIZE = "SIZE"
    """Request or answer is larger than the target's limits let it be."""
    LIMIT = "LIMIT"
    """The call made as many requests, or holds as many connections or bytes, as it may."""
    ADDRESS = "ADDRESS"
    """The target's host stands for an address that may not be reached."""
    CONNECT = "CONNECT"
    """The target was not reached, or is not who it should be."""
    CREDENTIAL = "CREDENTIAL"
    """The credential cannot be added to this request."""
    ANSWER = "ANSWER"
    """The target's answer cannot be passed on."""
    TIME = "TIME"
    """It took longer than the target's limits let it."""
    TLS = "TLS"
    """TLS was not opened as it has to be."""


class Refusal(Exception):
    """An exchange ends here. Its text is ours: nothing of the request or of the answer stands in it.

    Attributes:
        status: What the sandbox is told.
        check: Which check refused.
        outcome: What the record says.
    """

    def __init__(self, status: int, check: Check | Hurdle, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.status, self.check, self.text, self.outcome = status, check, text, outcome

    @property
    def body(self) -> bytes:
        """The line that the sandbox reads."""
        return f"toolcrib: {self.text}\n".encode("ascii", "backslashreplace")


def refuse_request(text: str) -> Refusal:
    """Say that what came is no request that may be read."""
    return Refusal(400, Hurdle.REQUEST, text, Outcome.PROTOCOL_REFUSED)


def refuse_answer(text: str) -> Refusal:
    """Say that the target's answer cannot be passed on."""
    return Refusal(502, Hurdle.ANSWER, text, Outcome.BAD_ANSWER)
