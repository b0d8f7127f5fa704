"""Stage 10, sanitize: raw output → a checked, cleaned, scanned and labelled `Answer`.

Rules:
1. What the contract does not say does not leave: unknown fields, broken rules and other bytes are refused.
2. The decoded result is searched for the very secrets that were minted for this call. What holds one is
   replaced and the contract checked again; a result that cannot do without it is refused.
3. A file that the tool gave back is taken as it is, or, when it holds one of those secrets, thrown away with
   the result.
4. Fields that strangers fill are cleaned by their format (broker/cleaning.py) before secrets are searched
   for: what hides one is gone by then. Markup is searched as it came, too, and without the marks that
   cleaning writes (broker/content_secrets.py). The record says what was taken out. What cannot be cleaned is
   refused.
5. A write that answered nonsense did answer: it is FAILED with effect APPLIED, never run again. A write whose
   result was redacted has SUCCEEDED.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

from google.protobuf.message import Message

from broker.cleaning import Cleaner, NotCleaned
from broker.content_secrets import take_out_marked, take_out_raw
from broker.errors import Failed
from broker.held_values import HoldsSecret, redact_message
from broker.labels import make_labels
from broker.leaks import LeakAlarm
from broker.model import Answer, Artefact, Call, Mark
from broker.redaction import LONG_CHARACTERS, Found, Redaction, off_loop
from broker.stages.run import RawOutput
from broker.trail import Trail
from credentials.lease import Lease
from sandboxes.outcome import RawArtefact
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Contract
from tools.errors import ContractError

Origins = Callable[[str, str], Collection[str]]
"""Tells to which origins links may stay, for a tenant and an environment: "https://docs.example"."""

TakeOut = Callable[[Contract, Message, Redaction], tuple[Message, Found]]

_NO_SECRETS = Redaction(())
# What is longer is searched in pieces of so many bytes: each step of the search keeps the interpreter.
_PIECE_BYTES = LONG_CHARACTERS
# So much of one piece is in the next one as well; more where a secret is very long.
_OVERLAP_BYTES, _OVERLAP_SPELLINGS = 64 * 1024, 16


class Sanitizer:
    """Makes answers of what tools give back."""

    def __init__(self, alarm: LeakAlarm, cleaner: Cleaner, origins: Origins = lambda *_: ()) -> None:
        """Prepare.

        Args:
            alarm: Sounds where a secret is found.
            cleaner: Cleans untrusted fields.
            origins: Tells to which links in Markdown keep their targets.
        """
        self._alarm, self._cleaner, self._origins = alarm, cleaner, origins

    async def __call__(
        self, call: Call, raw_output: RawOutput, leases: Sequence[Lease], trail: Trail
    ) -> Answer:
        """Check and clean a result, and search the files that came with it.

        Raises:
            Failed: RESULT_INVALID or SECRET_IN_RESULT.
        """
        contract, redaction = call.contract, Redaction(leases) if leases else _NO_SECRETS
        has_secrets = any(lease.secrets for lease in leases)
        try:
            response = raw_output.response
            message = await off_loop(len(response), lambda: contract.parse_result(response))
        except ContractError as error:
            raise await self._explain(call, error, redaction, trail) from error
        if has_secrets:
            message = await self._take_out(take_out_raw, call, message, redaction, trail)
        cleaned = await self._clean(call, message, trail)
        if has_secrets:
            cleaned = await self._take_out(take_out_marked, call, cleaned, redaction, trail)
            result = await self._redact(call, cleaned, redaction, trail)
            await self._search(call, raw_output.artefacts, redaction, trail)
        else:  # nothing was minted that could be in it
            result = _encode(contract, cleaned, is_changed=False)
        artefacts = [
            await off_loop(len(file.content), lambda file=file: _describe(file))  # type: ignore[misc]
            for file in raw_output.artefacts
        ]
        labels = make_labels(contract, call.version, has_files=bool(artefacts))
        return Answer(call.call_id, contract, result, labels, artefacts=tuple(artefacts))

    async def _take_out(
        self, take_out: TakeOut, call: Call, message: Message, redaction: Redaction, trail: Trail
    ) -> Message:
        """Take secrets out of fields with markup, if there are such fields.

        Raises:
            Failed: SECRET_IN_RESULT, the result is nothing without them.
        """
        if not call.contract.untrusted:
            return message
        size = message.ByteSize()
        taken, found = await off_loop(size, lambda: take_out(call.contract, message, redaction))
        if not found:
            return message
        await self._alarm.sound(trail, Mark.SECRET_IN_RESULT, found)
        try:
            await off_loop(size, lambda: call.contract.check_result(taken))
        except ContractError as error:
            raise _secret_in_result(call) from error
        return taken

    async def _clean(self, call: Call, message: Message, trail: Trail) -> Message:
        origins = self._origins(call.caller.tenant, call.environment)
        try:
            cleaned, trail.removed = await self._cleaner.clean(
                call.contract, message, origins, call.caller.tenant
            )
        except NotCleaned as error:
            raise Failed(
                Reason.REASON_RESULT_INVALID,
                f"the tool's result could not be cleaned: {error}; it was thrown away",
                details=_effect(call),
            ) from error
        return cleaned

    async def _search(
        self, call: Call, files: Sequence[RawArtefact], redaction: Redaction, trail: Trail
    ) -> None:
        """See that no file holds a secret, in its content, its name or its media type."""
        heads = "\n".join([*(file.name for file in files), *(file.media_type for file in files)])
        found = await off_loop(len(heads), lambda: redaction.find(heads))
        for file in files:
            found |= await _search_content(file.content, redaction)
        if found:
            await self._alarm.sound(trail, Mark.SECRET_IN_RESULT, found)
            raise _secret_in_file(call)

    async def _redact(self, call: Call, message: Message, redaction: Redaction, trail: Trail) -> bytes:
        """Take the secrets out of a result, in place, check what is left, and encode it."""
        contract, size = call.contract, message.ByteSize()
        try:
            found = await off_loop(size, lambda: redact_message(message, redaction))
            await self._alarm.sound(trail, Mark.SECRET_IN_RESULT, found)
            return await off_loop(size, lambda: _encode(contract, message, is_changed=bool(found)))
        except HoldsSecret as error:
            await self._alarm.sound(trail, Mark.SECRET_IN_RESULT, error.found)
            raise _secret_in_result(call) from error
        except ContractError as error:
            # Nothing of what broke is told: its path may hold a map's key.
            raise _secret_in_result(call) from error

    async def _explain(self, call: Call, error: ContractError, redaction: Redaction, trail: Trail) -> Failed:
        """Name the fields of a result that is none; a map's key in a field's path is the tool's own text."""
        fields = dict.fromkeys(violation.field for violation in error.violations)
        size = sum(map(len, fields))
        cleaned = await off_loop(size, lambda: redaction.clean(", ".join(fields)))
        await self._alarm.sound(trail, Mark.SECRET_IN_ERROR, cleaned.found)
        where = cleaned.text[:500] or "its bytes"
        return Failed(
            Reason.REASON_RESULT_INVALID,
            f"the tool's result breaks its contract at {where}; it was thrown away",
            details=_effect(call),
        )


def _encode(contract: Contract, message: Message, *, is_changed: bool) -> bytes:
    """Write a result; one from which something was taken has to satisfy its contract still."""
    result = contract.canonical(message)
    if is_changed:
        contract.parse_result(result)
    return result


async def _search_content(content: bytes, redaction: Redaction) -> Found:
    """Search a file; a long one in pieces that overlap."""
    overlap = max(_OVERLAP_BYTES, redaction.longest * _OVERLAP_SPELLINGS)
    found: set[str] = set()
    for begin in range(0, max(len(content) - overlap, 1), _PIECE_BYTES):
        piece = content[begin : begin + _PIECE_BYTES + overlap]
        found |= await off_loop(len(piece), lambda piece=piece: redaction.find_bytes(piece))  # type: ignore[misc]
    return frozenset(found)


def _describe(file: RawArtefact) -> Artefact:
    digest = hashlib.sha256(file.content).hexdigest()
    return Artefact(file.name, file.media_type, len(file.content), digest, file.content)


def _secret_in_file(call: Call) -> Failed:
    return Failed(
        Reason.REASON_SECRET_IN_RESULT,
        "a file that the tool gave back holds a secret minted for this call; both were thrown away",
        details=_effect(call),
    )


def _secret_in_result(call: Call) -> Failed:
    return Failed(
        Reason.REASON_SECRET_IN_RESULT,
        "the tool's result holds a secret minted for this call and is nothing without it; it was thrown away",
        details=_effect(call),
    )


def _effect(call: Call) -> dict[str, str]:
    return {"effect": "APPLIED"} if call.is_write else {}
