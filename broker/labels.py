"""Labels: where content came from, by its contract alone. No detector decides.

    tool:METHOD@VERSION   the tool that gave it
    untrusted             strangers may have written some of it
    restored              the state was restored from a backup: what was read since that was made is not known

What counts as untrusted:
1. The result of a tool whose response has an `untrusted` field, whatever stands in it this time.
2. Every file that a tool gives back: it has no contract, field by field.
3. What a tool says when it fails: free text, whoever put it there.
"""

from __future__ import annotations

from broker.errors import CallError, Failed
from broker.model import CallRecord, CallState
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract

UNTRUSTED = "untrusted"
RESTORED = "restored"

# Failures whose text is the broker's own, all of it. A reason that is not here may carry a tool's words.
_OWN_WORDS = frozenset(
    {
        Reason.REASON_UNSPECIFIED,
        Reason.REASON_RECORD_UNAVAILABLE,
        Reason.REASON_STALE_EPOCH,
        Reason.REASON_DRAINING,
        Reason.REASON_CREDENTIALS_UNAVAILABLE,
        Reason.REASON_DEADLINE_EXCEEDED,
        Reason.REASON_OUTPUT_TOO_LARGE,
        Reason.REASON_SECRET_IN_RESULT,
        Reason.REASON_CALL_STOPPED,
    }
)


def name_source(method: str, version: str) -> str:
    """Name a tool as the source of content."""
    return f"tool:{method}@{version}"


def make_labels(contract: Contract, version: ToolVersion, *, has_files: bool = False) -> tuple[str, ...]:
    """Label a result with where it comes from."""
    source = name_source(contract.method, version.version)
    return (source, UNTRUSTED) if contract.untrusted or has_files else (source,)


def label_failure(error: CallError, method: str, version: str) -> tuple[str, ...]:
    """Label what a call that ran is told instead of a result; empty where no tool had a say in it."""
    if not isinstance(error, Failed) or error.reason in _OWN_WORDS:
        return ()
    return name_source(method, version), UNTRUSTED


def label_record(record: CallRecord) -> tuple[str, ...]:
    """Label what whoever reads the record of a call gets of its content."""
    if record.state is CallState.SUCCEEDED:
        tainted = bool(record.artefacts) and UNTRUSTED not in record.labels
        return (*record.labels, UNTRUSTED) if tainted else record.labels
    ended = (CallState.FAILED, CallState.IN_DOUBT, CallState.NEEDS_HUMAN)
    if record.state not in ended or not record.message or record.reason in _OWN_WORDS:
        return ()
    return name_source(record.method, record.tool_version), UNTRUSTED
