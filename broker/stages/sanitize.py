"""Stage 10, sanitize: raw output → a checked, cleaned, scanned and labelled `Answer`.

Rules:
1. What the contract does not say does not leave: unknown fields, broken rules and other bytes are refused.
2. The decoded result is searched for the very secrets that were minted for this call.
3. A write that answered nonsense did answer: it is FAILED with effect APPLIED, never run again.
"""

from __future__ import annotations

from broker.errors import Failed
from broker.model import Answer, Call
from broker.redaction import Redaction
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract
from tools.errors import ContractError


def sanitize(call: Call, raw_output: bytes, redaction: Redaction) -> Answer:
    """Check and clean a result.

    Raises:
        Failed: RESULT_INVALID or SECRET_IN_RESULT.
    """
    contract = call.contract
    details = {"effect": "APPLIED"} if call.is_write else {}
    try:
        message = contract.parse_result(raw_output)
    except ContractError as error:
        fields = ", ".join(dict.fromkeys(violation.field for violation in error.violations))
        raise Failed(
            Reason.REASON_RESULT_INVALID,
            f"the tool's result breaks its contract at {fields or 'its bytes'}; it was thrown away",
            details=details,
        ) from error
    cleaned, _ = contract.sanitize_result(message)
    result = contract.canonical(cleaned)
    if redaction.finds(contract.result_json(result)) or redaction.finds_bytes(result):
        raise Failed(
            Reason.REASON_SECRET_IN_RESULT,
            "the tool's result holds a secret minted for this call; it was thrown away",
            details=details,
        )
    return Answer(call.call_id, contract, result, make_labels(contract, call.version))


def make_labels(contract: Contract, version: ToolVersion) -> tuple[str, ...]:
    """Label a result with where it comes from."""
    labels = [f"tool:{contract.method}@{version.version}"]
    if contract.untrusted:
        labels.append("untrusted")
    return tuple(labels)
