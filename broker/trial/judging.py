"""Whether what came of an example is what it wants, by the broker's own rules for results.

A verdict's problem is text for people, several lines where JSON differs; it is empty when all is well.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from broker.held_values import HoldsSecret, redact_message
from broker.redaction import Redaction
from broker.trial.bench import Bench
from broker.trial.minting import mint
from broker.trial.running import run_once
from sandboxes.outcome import OutcomeKind, RawOutcome
from toolcrib.handler.v1 import handler_pb2
from tools.contract import Contract
from tools.errors import ContractError, Violation
from tools.examples import Example, FailureWanted, compare

_LOG_LINES = 30
_EFFECTS = {handler_pb2.EFFECT_NONE: "none", handler_pb2.EFFECT_APPLIED: "applied"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one example.

    Attributes:
        problem: What is wrong; empty when it went as it should.
        log: The end of what handler and fakes printed, where something is wrong.
    """

    example: Example
    problem: str
    seconds: float
    log: str = ""


async def try_examples(bench: Bench, examples: Sequence[Example]) -> AsyncIterator[Verdict]:
    """Try examples in their order, each in a sandbox of its own, and tell of each when it is done.

    Args:
        bench: Where.
        examples: They fit the bundle (`check_examples`).

    Raises:
        BundleInvalid: A credential of an example lacks a field.
        SandboxError: No sandbox can be made.
        EgressError: The way out to targets cannot be made.
    """
    for example in examples:
        began = time.monotonic()
        problem, log = await _try(bench, example)
        yield Verdict(example, problem, time.monotonic() - began, log)


async def _try(bench: Bench, example: Example) -> tuple[str, str]:
    contract = bench.contract(example)
    try:
        message = contract.parse_request_json(json.dumps(example.request, default=str))
    except ContractError as error:
        return _judge_refusal(example, error.violations), ""
    if example.violations is not None:
        return "the contract accepts the request, which it should not", ""
    wanted, where = bench.version.manifest.credentials, f"{example.file}: {example.name}"
    leases = [
        mint(name, wanted[name], example.credentials.get(name, {}), where)
        for name in bench.runtime(example).credentials
    ]
    ran = await run_once(bench, example, contract.canonical(message), leases)
    problem = _judge(example, contract, ran.outcome, Redaction(leases))
    said = "\n".join(part for part in (ran.outcome.log.strip(), ran.fakes_log) if part)
    return problem, "\n".join(said.splitlines()[-_LOG_LINES:]) if problem else ""


def _judge_refusal(example: Example, violations: Sequence[Violation]) -> str:
    found = [f"{violation.field}: {violation.description}" for violation in violations]
    if example.violations is None:
        return "\n".join(["the contract refuses the request:", *found])
    if {violation.field for violation in violations} == set(example.violations):
        return ""
    wanted = ", ".join(example.violations)
    return "\n".join([f"wanted are violations at {wanted}; the contract refuses the request for:", *found])


def _judge(example: Example, contract: Contract, outcome: RawOutcome, redaction: Redaction) -> str:
    if outcome.kind is OutcomeKind.RESULT:
        return _judge_result(example, contract, outcome, redaction)
    if outcome.failure is not None:
        return _judge_failure(example.failure, outcome.failure, redaction)
    how = outcome.kind.value.lower().replace("_", " ")
    return f"the handler gave no answer: {how}: {outcome.detail}"


def _judge_result(example: Example, contract: Contract, outcome: RawOutcome, redaction: Redaction) -> str:
    try:
        cleaned = contract.sanitize_result(contract.parse_result(outcome.response))[0]
    except ContractError as error:
        found = [f"{violation.field}: {violation.description}" for violation in error.violations]
        return "\n".join(["RESULT_INVALID: the result breaks the contract:", *found])
    try:
        held = redact_message(cleaned, redaction)
    except HoldsSecret as error:
        held = error.found
    for file in outcome.artefacts:
        held |= redaction.find_bytes(file.content)
    if held:
        return f"SECRET_IN_RESULT: the result holds what was minted as {', '.join(sorted(held))}"
    got = json.loads(contract.result_json(contract.canonical(cleaned)))
    return _compare_result(example, got) or _compare_artefacts(example, outcome)


def _compare_result(example: Example, got: object) -> str:
    wanted = example.result if example.result is not None else example.result_includes
    if wanted is None:
        shown = json.dumps(got, indent=2, ensure_ascii=False)
        return f"wanted is a failure; a result came:\n{shown}"
    return compare(wanted, got, whole=example.result is not None)


def _compare_artefacts(example: Example, outcome: RawOutcome) -> str:
    came = sorted(file.name for file in outcome.artefacts)
    wanted = sorted(example.artefacts)
    return "" if came == wanted else f"wanted are the files {wanted}; {came} came"


def _judge_failure(wanted: FailureWanted | None, got: handler_pb2.Failure, redaction: Redaction) -> str:
    effect = _EFFECTS.get(got.effect, "unknown")
    if held := redaction.find(f"{got.code}\n{got.message}"):
        return f"the failure's text holds what was minted as {', '.join(sorted(held))}"
    if wanted is None:
        return f"the handler failed: {got.code}: {got.message} (effect {effect})"
    pairs = [
        ("code", wanted.code, got.code, wanted.code == got.code),
        ("message", wanted.message, got.message, wanted.message in got.message),
        ("retryable", wanted.retryable, got.retryable, wanted.retryable in (None, got.retryable)),
        ("effect", wanted.effect, effect, wanted.effect in (None, effect)),
    ]
    return "\n".join(
        f"{name}: wanted is {one!r}; {other!r} came" for name, one, other, same in pairs if not same
    )
