"""Stage 6, approve: does a person have to agree first?

First form: refuse-only. There is no way to approve yet, so a grant marked `ask` and every concern of the
gate end the call here, before anything is reserved or minted.
"""

from __future__ import annotations

from broker.errors import Refused
from broker.model import Call, Grant
from broker.stages.gate import Concern
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation


def approve(call: Call, grant: Grant, concerns: tuple[Concern, ...]) -> None:
    """Let a call pass that needs nobody's approval.

    Raises:
        Refused: APPROVAL_REQUIRED, with the digest of the exact request that would need approval.
    """
    causes = [f'grant "{grant.grant_id}" asks: {grant.ask}'] if grant.ask else []
    causes += [f"{concern.field}: {concern.cause}" for concern in concerns]
    if causes:
        raise Refused(
            Reason.REASON_APPROVAL_REQUIRED,
            f"a person has to approve this call, nothing ran: {'; '.join(causes)}",
            violations=[Violation(concern.field, concern.cause) for concern in concerns],
            details={"request_digest": call.digest, "grant_id": grant.grant_id},
        )
