"""A person says what became of a call that is in doubt."""

from __future__ import annotations

from dataclasses import dataclass

from broker.catalogue import Catalogue
from broker.cleaning import Cleaner, NotCleaned
from broker.errors import Refused
from broker.fence import Fence, NotFenced
from broker.finding import Finding, resolved_event, resolved_record
from broker.labels import make_labels
from broker.model import Caller, CallRecord, CallState
from broker.store.protocol import Store
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import ContractError, Violation

MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person found at the target.

    Attributes:
        result_json: The write's answer as JSON; empty where it is not known.
        reason: How the person knows.
    """

    happened: bool
    result_json: str
    reason: str


class Decider:
    """Takes decisions on calls that are IN_DOUBT or NEEDS_HUMAN."""

    def __init__(self, store: Store, catalogue: Catalogue, fence: Fence, cleaner: Cleaner) -> None:
        self._store, self._catalogue, self._fence, self._cleaner = store, catalogue, fence, cleaner

    async def decide(self, call_id: str, decision: Decision, by: Caller) -> CallRecord:
        """Resolve a call of the person's tenant.

        Raises:
            Refused: CALL_UNKNOWN; REQUEST_INVALID, with every violation; IN_PROGRESS, where it is to be said
                that it did not happen and the attempt is not confirmed to have ended.
        """
        call = await self._store.get_call(by.tenant, call_id)
        if call is None:
            raise Refused(Reason.REASON_CALL_UNKNOWN, "no such call that you may see; ListCalls names those")
        _check(call, decision)
        result = await self._read_result(call, decision)
        if not decision.happened:
            await self._see_that_it_ended(call)
        state = CallState.SUCCEEDED if decision.happened else CallState.FAILED
        said = "it happened" if decision.happened else "it did not happen"
        finding = Finding(
            state,
            f"it was in doubt; {by.name} said that {said}: {decision.reason}",
            result,
            self._labels(call) if decision.happened else (),
            facts={"by": by.name, "reason": decision.reason},
        )
        record = resolved_record(call, finding)
        await self._store.resolve(record, resolved_event(record, finding, by.identity))
        return record

    async def _read_result(self, call: CallRecord, decision: Decision) -> bytes | None:
        if not decision.result_json:
            return None
        version = self._catalogue.find_method(call.tenant, call.method, call.tool_version)
        if version is None:
            raise _invalid(Violation("result_json", "cannot be read: the version of the tool is not there"))
        contract = version.contracts[call.method]
        try:
            message = contract.parse_result_json(decision.result_json)
        except ContractError as error:
            raise _invalid(
                *(Violation(f"result_json: {one.field}", one.description) for one in error.violations)
            ) from error
        try:
            cleaned, _ = await self._cleaner.clean(contract, message, tenant=call.tenant)
        except NotCleaned as error:
            raise _invalid(Violation("result_json", f"cannot be cleaned: {error}")) from error
        return contract.canonical(cleaned)

    def _labels(self, call: CallRecord) -> tuple[str, ...]:
        version = self._catalogue.find_method(call.tenant, call.method, call.tool_version)
        return make_labels(version.contracts[call.method], version) if version else ()

    async def _see_that_it_ended(self, call: CallRecord) -> None:
        """See that a call whose key is about to be given back can have no effect any more."""
        try:
            await self._fence(call)
        except NotFenced as error:
            raise Refused(
                Reason.REASON_IN_PROGRESS,
                f"the attempt is not confirmed to have ended, so it may still happen: {error}. Try again",
                retry_after_seconds=5.0,
            ) from error


def _check(call: CallRecord, decision: Decision) -> None:
    violations = []
    if call.state not in (CallState.IN_DOUBT, CallState.NEEDS_HUMAN):
        violations.append(
            Violation("call_id", f"is {call.state}: only IN_DOUBT and NEEDS_HUMAN are to be resolved")
        )
    if not decision.reason.strip():
        violations.append(Violation("reason", "is required: say how you know, for the record and the audit"))
    if len(decision.reason) > MAX_REASON_CHARACTERS:
        violations.append(Violation("reason", f"is longer than {MAX_REASON_CHARACTERS} characters"))
    if decision.result_json and not decision.happened:
        violations.append(Violation("result_json", "is for a write that happened: leave it out"))
    if violations:
        raise _invalid(*violations)


def _invalid(*violations: Violation) -> Refused:
    fields = ", ".join(dict.fromkeys(violation.field for violation in violations))
    return Refused(
        Reason.REASON_REQUEST_INVALID, f"the decision cannot be taken: {fields}", violations=violations
    )
