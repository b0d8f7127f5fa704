"""What a tool is given at its start, and the signatures that it may ask for while it runs.

Rules:
1. Secrets go into the start frame and nowhere else; the key of a `Signer` not even there, and what the HTTP
   proxy adds to requests neither.
2. `Signing` never raises: whatever is wrong with a Sign is said to the handler, in words of ours.
3. A try counts, whether it was signed or not: a handler cannot make Vault work without end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from broker.model import Call, Reservation
from credentials.errors import CredentialsError
from credentials.lease import (
    ClientCertificate,
    KeyValues,
    Lease,
    Payload,
    Signer,
    SshLogin,
    UsernamePassword,
)
from sandboxes.egress.process import Egress
from toolcrib.handler.v1 import handler_pb2
from tools.manifest import Manifest

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
MAX_SIGN_BYTES = 32 * 1024


class Signing:
    """Answers the handler of one call when it asks for a signature."""

    def __init__(self, call_id: str, leases: Sequence[Lease]) -> None:
        self._call_id = call_id
        self._signers = {
            lease.credential: lease.payload for lease in leases if isinstance(lease.payload, Signer)
        }
        self._left = {name: signer.max_signatures for name, signer in self._signers.items()}

    async def __call__(self, sign: handler_pb2.Sign) -> handler_pb2.Signature:
        """Sign, or say why not."""
        signer = self._signers.get(sign.credential)
        problem = self._find_problem(sign)
        if signer is None or problem:
            return handler_pb2.Signature(id=sign.id, error=problem)
        self._left[sign.credential] -= 1
        try:
            signed = await signer.sign(sign.input)
        except CredentialsError as error:
            log.warning("no signature", extra={"call_id": self._call_id, "cause": str(error)})
            return handler_pb2.Signature(id=sign.id, error="the key cannot be used now")
        return handler_pb2.Signature(id=sign.id, signature=signed.signature, key_version=signed.key_version)

    def _find_problem(self, sign: handler_pb2.Sign) -> str:
        if sign.credential not in self._signers:
            known = ", ".join(sorted(self._signers)) or "none"
            return f"this call has no such credential that signs; it has: {known}"
        if len(sign.input) > MAX_SIGN_BYTES:
            return f"the input is over {MAX_SIGN_BYTES // 1024} KiB: sign its digest instead"
        if self._left[sign.credential] <= 0:
            most = self._signers[sign.credential].max_signatures
            return f"all signatures of this call are used: its manifest allows {most}"
        return ""


def start_frame(
    call: Call, reservation: Reservation, leases: Sequence[Lease], egress: Egress | None
) -> handler_pb2.Start:
    """Make the one request of a sandbox's life."""
    context = handler_pb2.CallContext(
        call_id=call.call_id,
        tenant=call.caller.tenant,
        environment=call.environment,
        agent=call.caller.name,
        subject=call.caller.subject,
        idempotency_key=call.target_key,
        attempt=reservation.attempt,
        remaining_millis=int(max(call.deadline - time.monotonic(), 0) * 1000),
        traceparent=call.traceparent,
    )
    return handler_pb2.Start(
        protocol_version=PROTOCOL_VERSION,
        context=context,
        method=call.contract.method,
        request=call.canonical,
        credentials=credential_frames(call.version.manifest, leases),
        targets=egress.handler_targets() if egress else {},
    )


def credential_frames(manifest: Manifest, leases: Sequence[Lease]) -> dict[str, handler_pb2.Credential]:
    """Write a call's credentials as the handler gets them; of one that is added on the way only how it is."""
    frames = {}
    for lease in leases:
        inject = manifest.credentials[lease.credential].inject
        if inject is None:
            frames[lease.credential] = credential_frame(lease.payload)
        else:
            injected = handler_pb2.Injected(form=inject.form)
            frames[lease.credential] = handler_pb2.Credential(injected=injected)
    return frames


def credential_frame(payload: Payload) -> handler_pb2.Credential:
    """Write a credential as the handler gets it."""
    frame = handler_pb2.Credential()
    match payload:
        case UsernamePassword():
            frame.username_password.username = payload.username
            frame.username_password.password = payload.password.reveal()
        case KeyValues():
            for name, value in payload.values.items():
                frame.key_values.values[name] = value.reveal()
            frame.key_values.version = payload.version
        case ClientCertificate():
            frame.client_certificate.certificate_pem = payload.certificate_pem
            frame.client_certificate.private_key_pem = payload.private_key_pem.reveal()
            frame.client_certificate.chain_pem = payload.chain_pem
        case SshLogin():
            frame.ssh_login.username = payload.username
            frame.ssh_login.private_key = payload.private_key.reveal()
            frame.ssh_login.certificate = payload.certificate
        case Signer():
            frame.signer.algorithm = payload.algorithm
            frame.signer.max_signatures = payload.max_signatures
            frame.signer.public_key_pem = payload.public_key_pem
    return frame
