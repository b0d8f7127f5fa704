"""Asks a tool about a call in doubt, or sends it again, as a call of the broker's own.

Such a call has its own record, audit, leases and sandbox, and ends like any other. No grant is asked: an
agent's call was allowed once, and what became of it does not hang on what the grants say now. The tool gets
the target key of the call in doubt, and acts for the same subject: an exchanged credential sees what its user
wrote. When it is sent again it has also its agent, the next attempt, and the requests that its grant left of
the way out. What an operator stopped is asked about, and never sent again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import Message

from broker.catalogue import Catalogue
from broker.errors import CallError, Failed
from broker.fence import Fenced
from broker.finding import RESOLVER, Finding, needs_human
from broker.grant_book import GrantBook
from broker.keys import TenantKeys
from broker.labels import make_labels
from broker.model import Answer, Call, Caller, CallRecord, CallState, EgressRules, Mark, Role
from broker.path import Path
from broker.store.records import ClaimScope
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract
from tools.errors import ContractError

NOT_LOADED_SETTLE_SECONDS = 0.0


@dataclass(frozen=True, slots=True)
class _Errand:
    """A call of the broker's own about another one."""

    about: CallRecord
    version: ToolVersion
    contract: Contract
    message: Message
    agent: str
    subject: str
    attempt: int = 1
    egress: EgressRules = None


class Inquirer:
    """Finds out what became of calls."""

    def __init__(self, path: Path, catalogue: Catalogue, grants: GrantBook, keys: TenantKeys) -> None:
        self._path, self._catalogue, self._grants, self._keys = path, catalogue, grants, keys

    def settle_seconds(self, call: CallRecord) -> float:
        """Say how long after the fence an effect of a call may still show."""
        version = self._version(call)
        return version.manifest.method(call.method).settle_seconds if version else NOT_LOADED_SETTLE_SECONDS

    async def find_out(self, call: CallRecord, fenced: Fenced) -> Finding:
        """Find out what became of a call that is fenced and whose target has settled since.

        Raises:
            CallError: There is no answer now.
        """
        assert fenced.call_id == call.call_id, "each call is fenced itself"
        version = self._version(call)
        if version is None:
            return needs_human(f"version {call.tool_version} of the tool is not there any more")
        contract = version.contracts[call.method]
        if contract.probe:
            return await self._probe(call, version, contract)
        if contract.dedupes:
            return await self._send_again(call, version, contract)
        return needs_human("the tool has no probe and its target does not dedupe")

    def _version(self, call: CallRecord) -> ToolVersion | None:
        return self._catalogue.find_method(call.tenant, call.method, call.tool_version)

    async def _probe(self, call: CallRecord, version: ToolVersion, contract: Contract) -> Finding:
        probe = version.contracts[contract.probe]
        try:
            message = probe.probe_request(self._target_key(call))
        except ContractError:
            return needs_human("its probe does not take the key")
        answer = await self._run(_Errand(call, version, probe, message, RESOLVER, call.subject))
        happened, result = probe.read_probe(probe.parse_result(answer.result))
        facts = {"by": "probe", "in_call": answer.call_id}
        if not happened:
            text = f"it was in doubt; {contract.probe} found that it did not happen (call {answer.call_id})"
            return Finding(CallState.FAILED, text, facts=facts)
        text = f"it was in doubt; {contract.probe} found that it happened (call {answer.call_id})"
        labels = make_labels(contract, version)
        return Finding(CallState.SUCCEEDED, text, result, labels, facts=facts)

    async def _send_again(self, call: CallRecord, version: ToolVersion, contract: Contract) -> Finding:
        if call.request is None:
            return needs_human("its request was erased, so it cannot be sent again")
        if Mark.STOPPED in call.marks:  # to send it again would be to do what an operator stopped
            return needs_human("an operator stopped it, so it is not sent again")
        try:
            message = contract.parse_request(call.request)
        except ContractError:
            return needs_human("its request cannot be read any more")
        attempt = call.attempt + 1
        egress = None
        if version.manifest.http_targets(call.method):  # what it asks of them, a grant may narrow
            policy = self._grants.of(call.tenant).find_permit(call.grant_id)
            if policy is None:
                text = f'grant "{call.grant_id}", which may have narrowed its requests, is not there any more'
                return needs_human(f"{text}, so it is not sent again")
            egress = policy.terms.egress
        errand = _Errand(call, version, contract, message, call.agent, call.subject, attempt, egress)
        try:
            answer = await self._run(errand)
        except Failed as error:
            if error.details.get("effect") != "APPLIED":
                raise
            text = f"it was in doubt; sent again it was applied, without a valid answer ({error.reason_name})"
            return Finding(CallState.SUCCEEDED, text, attempt=attempt, facts={"by": "sending again"})
        text = f"it was in doubt; sent again under the same key it succeeded (call {answer.call_id})"
        facts = {"by": "sending again", "in_call": answer.call_id}
        return Finding(
            CallState.SUCCEEDED, text, answer.result, answer.labels, attempt, facts, answer.artefacts
        )

    async def _run(self, errand: _Errand) -> Answer:
        call, contract = errand.about, errand.contract
        own = Caller(call.tenant, RESOLVER, Role.AGENT, errand.subject, RESOLVER)
        trail = self._path.begin_own(contract.method, own, call.environment, call.call_id)
        trail.attempt = errand.attempt
        canonical = contract.canonical(errand.message)
        made = Call(
            call_id=trail.call_id,
            caller=Caller(call.tenant, errand.agent, Role.AGENT, errand.subject, RESOLVER),
            environment=call.environment,
            workflow="",
            key="",
            version=errand.version,
            contract=contract,
            message=errand.message,
            canonical=canonical,
            digest=self._keys.digest(call.tenant, contract.method, canonical),
            deadline=time.monotonic() + errand.version.manifest.method(contract.method).deadline_seconds,
            started=datetime.now(UTC),
            target_key=self._target_key(call) if contract.method == call.method else "",
        )
        try:
            return await self._path.answer_own(made, trail, errand.egress)
        except CallError:
            raise
        except Exception as error:  # a fault of the broker is no answer about the call
            raise Failed(Reason.REASON_UNSPECIFIED, f"the broker failed: {type(error).__name__}") from error

    def _target_key(self, call: CallRecord) -> str:
        return self._keys.target_key(
            ClaimScope(call.tenant, call.environment, call.agent, call.method, call.key)
        )
