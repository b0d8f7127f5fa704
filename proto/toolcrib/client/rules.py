"""What each reason allows a client to do: which family of error it is, and whether the call is sent again.

    Again.NEVER     another try ends the same way, or a person has to act first
    Again.ALWAYS    nothing ran, and it passes: sent again until the caller's time is up
    Again.SAME_KEY  it runs, or ran: asked again with the very same key; a read without a key: NEVER
    Again.READS     the tool may have run: a read, or a call with a key, is sent again, three times in all
    Again.TOLD      the tool's own failure: sent again where the broker says when, and only without a key
                    (under a key the failure is kept, and is the answer to every retry)

Whatever the rule, a write without a key is never sent again, and a key is never changed between two tries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from toolcrib.client.errors import Failed, Refused, ToolcribError


class Again(Enum):
    """When a call is sent again; the table above."""

    NEVER = auto()
    ALWAYS = auto()
    SAME_KEY = auto()
    READS = auto()
    TOLD = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """What one reason allows.

    Attributes:
        family: Whether nothing happened (Refused) or it was allowed and went wrong (Failed).
        again: Whether the client sends the call again by itself.
        advice: What to do next, for a model that asked for the call and for people.
    """

    family: type[Refused] | type[Failed]
    again: Again
    advice: str


LATER = "Nothing happened. The same call may work later."
NOT_AGAIN = "Nothing happened. The same call will be refused again: do something else, or tell the user."
CORRECT = "Nothing happened. Correct the arguments as the message and the violations say, and call again."
PERSON = "Nothing happened. A person has to act first: tell the user, and do not call again."
PROGRAM = (
    "Nothing happened. The program that calls has to be corrected: tell the user, and do not call again."
)
IN_DOUBT = (
    "It is not known whether it happened. Do not do it in another way. Calling again with exactly the same "
    "arguments is safe and tells what was found; otherwise tell the user, with the call_id."
)
RUNNING = (
    "It is still running. Calling again with exactly the same arguments is safe and gives its result; "
    "do not do it in another way."
)
OLD = "It may have happened before. Tell the user, and do not call again."
RAN = "It ran, and its result cannot be given. Tell the user, with the call_id, and do not call again."
TOOL = "The tool failed, as the message says. Correct what it names, do something else, or tell the user."
BROKEN = "The tool does not work. Do something else, or tell the user."

# Advice that holds where the write may have happened.
KNOWN_OPEN = frozenset({IN_DOUBT, RUNNING, OLD, RAN})

_UNKNOWN = Rule(Failed, Again.NEVER, "Tell the user, with the call_id, and do not call again.")


def _refused(again: Again, advice: str) -> Rule:
    return Rule(Refused, again, advice)


def _failed(again: Again, advice: str) -> Rule:
    return Rule(Failed, again, advice)


RULES = {
    "UNSPECIFIED": _UNKNOWN,
    "RECORD_UNAVAILABLE": _failed(Again.ALWAYS, LATER),
    "DRAINING": _refused(Again.ALWAYS, LATER),
    "TOO_MANY_CALLS": _refused(Again.ALWAYS, LATER),
    "REQUEST_TOO_LARGE": _refused(Again.NEVER, CORRECT),
    "STALE_EPOCH": _failed(Again.ALWAYS, LATER),
    "IDENTITY_UNKNOWN": _refused(Again.NEVER, PROGRAM),
    "CERTIFICATE_EXPIRED": _refused(Again.NEVER, PROGRAM),
    "ROLE_REQUIRED": _refused(Again.NEVER, PROGRAM),
    "CALLER_BLOCKED": _refused(Again.NEVER, PERSON),
    "TOKEN_INVALID": _refused(Again.NEVER, PROGRAM),
    "TOKEN_KEYS_UNAVAILABLE": _failed(Again.ALWAYS, LATER),
    "REQUEST_MALFORMED": _refused(Again.NEVER, CORRECT),
    "REQUEST_INVALID": _refused(Again.NEVER, CORRECT),
    "NEEDS_NEWER_VERSION": _refused(Again.NEVER, CORRECT),
    "METADATA_INVALID": _refused(Again.NEVER, PROGRAM),
    "KEY_REQUIRED": _refused(Again.NEVER, PROGRAM),
    "TOOL_UNKNOWN": _refused(Again.NEVER, NOT_AGAIN),
    "TOOL_NOT_USABLE": _refused(Again.NEVER, PERSON),
    "ENVIRONMENT_UNKNOWN": _refused(Again.NEVER, PROGRAM),
    "WORKFLOW_INVALID": _refused(Again.NEVER, PROGRAM),
    "KEY_REUSED": _refused(Again.NEVER, "Nothing new happened: the key is another call's. Tell the user."),
    "KEY_EXPIRED": _refused(Again.NEVER, OLD),
    "IN_PROGRESS": _refused(Again.SAME_KEY, RUNNING),
    "IN_DOUBT": _failed(Again.SAME_KEY, IN_DOUBT),
    "STATE_RESTORED": _refused(Again.NEVER, OLD),
    "NOT_GRANTED": _refused(Again.NEVER, NOT_AGAIN),
    "POLICY_FAILED": _refused(Again.NEVER, PERSON),
    "APPROVAL_REQUIRED": _refused(Again.NEVER, PERSON),
    "BUDGET_EXHAUSTED": _refused(Again.NEVER, NOT_AGAIN),
    "BRAKE_SET": _refused(Again.NEVER, PERSON),
    "DESTINATION_UNTRUSTED": _refused(Again.NEVER, NOT_AGAIN),
    "CREDENTIALS_UNAVAILABLE": _failed(Again.ALWAYS, LATER),
    "SANDBOX_UNAVAILABLE": _failed(Again.ALWAYS, LATER),
    "DEADLINE_EXCEEDED": _failed(Again.READS, "It did not end in time. Ask for less, or call again later."),
    "TOOL_FAILED": _failed(Again.TOLD, TOOL),
    "TOOL_CRASHED": _failed(Again.NEVER, BROKEN),
    "OUTPUT_TOO_LARGE": _failed(Again.NEVER, "The result is too large. Ask for less."),
    "CALL_STOPPED": _failed(Again.NEVER, "A person stopped it. Tell the user, and do not call again."),
    "RESULT_INVALID": _failed(Again.NEVER, RAN),
    "SECRET_IN_RESULT": _failed(Again.NEVER, RAN),
    "BUNDLE_INVALID": _refused(Again.NEVER, CORRECT),
    "VERSION_EXISTS": _refused(Again.NEVER, CORRECT),
    "BREAKING_CHANGE": _refused(Again.NEVER, CORRECT),
    "SELF_REVIEW": _refused(Again.NEVER, PERSON),
    "GRANTS_INVALID": _refused(Again.NEVER, CORRECT),
    "PLAN_STALE": _refused(Again.NEVER, CORRECT),
    "CALL_UNKNOWN": _refused(Again.NEVER, NOT_AGAIN),
    "BRAKE_UNKNOWN": _refused(Again.NEVER, NOT_AGAIN),
    "PAGE_TOKEN_INVALID": _refused(Again.NEVER, PROGRAM),
}
# What gRPC itself says when no broker answered; a call that may be repeated is.
TRANSPORT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})


# Of these it is certain that the try did nothing, though they are failures.
_NOTHING_RAN = frozenset({"CREDENTIALS_UNAVAILABLE", "SANDBOX_UNAVAILABLE", "TOKEN_KEYS_UNAVAILABLE"})
# Refusals of a try whose key may have done something before.
_EARLIER = frozenset({"IN_PROGRESS", "KEY_EXPIRED", "STATE_RESTORED"})


def is_open(error: ToolcribError) -> bool:
    """Tell whether a write may have happened after this try, by what the try alone says.

    A tool's own failure says itself whether it did something ("effect"); what nobody says is open.
    """
    if isinstance(error, Refused):
        return error.reason in _EARLIER
    return not (is_undone(error) or error.reason in _NOTHING_RAN)


def is_undone(error: ToolcribError) -> bool:
    """Tell whether the key's write is known to have ended without an effect."""
    return error.reason == "TOOL_FAILED" and error.details.get("effect") == "NONE"


def rule_of(reason: str) -> Rule:
    """Find the rule of a reason; one that only a newer broker knows is a failure that is never sent again."""
    return RULES.get(reason, _UNKNOWN)
