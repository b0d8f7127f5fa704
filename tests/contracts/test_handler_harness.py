"""What a handler answers in `toolcrib.handler.testing` it answers in a sandbox: one suite on all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.folders import Folders
from sandboxes.images import build_bundle
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxSpec
from sandboxes.sandbox import Driver
from tests.contracts.handler_cases import HANDLER, METHOD, handler
from tests.parts.engine import COMMAND, TestLimits
from toolcrib.handler import Login, testing
from toolcrib.handler.v1 import handler_pb2

LOGIN = Login("v-1", "secret-of-this-call")
REASON = "nobody waits"
EFFECTS = {"none": handler_pb2.EFFECT_NONE, "applied": handler_pb2.EFFECT_APPLIED}


@dataclass(frozen=True)
class Said:
    """What a caller learns of a call."""

    message: str = ""
    failure: tuple[str, str, bool, int] | None = None
    files: tuple[tuple[str, str, bytes], ...] = ()
    log: str = ""


Ask = Callable[[str], Awaitable[Said]]


async def ask_harness(case: str) -> Said:
    run = await testing.run_async(
        handler,
        METHOD,
        handler_pb2.Progress(message=case),
        credentials={"orders": LOGIN},
        idempotency_key="k-1",
        cancel_reason=REASON if case == "cancel" else "",
    )
    if run.failure is not None:
        code, message, retryable, effect = run.failure
        number = EFFECTS.get(effect, handler_pb2.EFFECT_UNKNOWN)
        return Said(failure=(code, message, retryable, number), log=run.log)
    return Said(
        run.result.message,
        files=tuple((name, kind, content) for name, kind, content in run.artefacts),
        log=run.log,
    )


async def ask_sandbox(driver: Driver, image: str, case: str) -> Said:
    limits = replace(TestLimits(), artefacts=2)
    spec = SandboxSpec(image, COMMAND, limits, None, driver.allocate_uid())
    start = handler_pb2.Start(
        protocol_version=1,
        method=METHOD,
        request=handler_pb2.Progress(message=case).SerializeToString(),
        credentials={"orders": testing.write_credential(LOGIN)},
        context=handler_pb2.CallContext(idempotency_key="k-1", remaining_millis=10_000),
    )
    async with driver.create(spec, "call") as sandbox:
        if case == "cancel":
            await sandbox.warm_up(10)
            sandbox.cancel(REASON)
        outcome = await sandbox.run(start, 10.0, refuse)
    return read_outcome(outcome)


async def refuse(sign: handler_pb2.Sign) -> handler_pb2.Signature:
    return handler_pb2.Signature(id=sign.id, error="this call has no credential that signs")


def read_outcome(outcome: RawOutcome) -> Said:
    if outcome.failure is not None:
        found = outcome.failure
        return Said(failure=(found.code, found.message, found.retryable, found.effect), log=outcome.log)
    assert outcome.kind is OutcomeKind.RESULT, outcome
    files = tuple((file.name, file.media_type, file.content) for file in outcome.artefacts)
    return Said(handler_pb2.Progress.FromString(outcome.response).message, files=files, log=outcome.log)


@pytest.fixture
def bubblewrap(bubblewrap_folders: Folders, bubblewrap_base: str, bubblewrap_driver: BubblewrapDriver) -> Ask:
    image = bubblewrap_folders.build_bundle(bubblewrap_base, {"handler.py": HANDLER})
    return lambda case: ask_sandbox(bubblewrap_driver, image, case)


@pytest.fixture
def docker(engine: Engine, base_image: str, driver: DockerDriver) -> Ask:
    image = build_bundle(engine, base_image, "cases", {"handler.py": HANDLER})
    return lambda case: ask_sandbox(driver, image, case)


@pytest.fixture
def harness() -> Ask:
    return ask_harness


@pytest.fixture(params=["harness", "bubblewrap", "docker"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.getfixturevalue(request.param)


async def test_gives_the_result(ask: Ask) -> None:
    assert await ask("result") == Said("done")


@pytest.mark.parametrize(
    ("effect", "number"),
    [
        ("none", handler_pb2.EFFECT_NONE),
        ("applied", handler_pb2.EFFECT_APPLIED),
        ("unknown", handler_pb2.EFFECT_UNKNOWN),
    ],
)
async def test_gives_a_failure_with_its_effect(ask: Ask, effect: str, number: int) -> None:
    said = await ask(f"failure {effect}")
    assert said == Said(failure=("TOO_LATE", "the shop is closed", True, number))


@pytest.mark.parametrize(
    ("case", "kind"), [("exception", "KeyError"), ("no credential", "KeyError"), ("other kind", "TypeError")]
)
async def test_tells_of_an_exception_its_type_alone(ask: Ask, case: str, kind: str) -> None:
    said = await ask(case)
    text = f"the tool's handler raised {kind}; see its log"
    assert said.failure == ("HANDLER_ERROR", text, False, handler_pb2.EFFECT_UNKNOWN)
    assert kind in said.log


async def test_gives_files_back(ask: Ask) -> None:
    assert (await ask("artefact")).files == (("report.csv", "text/csv", b"a,b\n"),)


async def test_says_why_it_was_cancelled(ask: Ask) -> None:
    assert await ask("cancel") == Said(f"cancelled: {REASON}")


async def test_takes_no_other_message_for_the_response(ask: Ask) -> None:
    said = await ask("other message")
    text = "the tool's handler returned toolcrib.handler.v1.Cancel instead of toolcrib.handler.v1.Progress"
    assert said.failure == ("RESPONSE_INVALID", text, False, handler_pb2.EFFECT_UNKNOWN)


async def test_gives_credential_and_key(ask: Ask) -> None:
    assert await ask("credential") == Said("v-1 under k-1")


async def test_says_that_there_is_no_signature(ask: Ask) -> None:
    said = await ask("no signature")
    assert said.failure is not None
    assert "SignatureRefused" in said.failure[1]


async def test_the_harness_tells_of_progress() -> None:
    run = await testing.run_async(handler, METHOD, handler_pb2.Progress(message="result"))
    assert run.progress == [("half", 50)]


async def test_the_harness_says_that_a_coroutine_has_to_wait_for_it() -> None:
    with pytest.raises(RuntimeError, match="run_async"):
        testing.run(handler, METHOD, handler_pb2.Progress(message="result"))


def test_the_harness_leaves_no_file_behind(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = testing.run(handler, METHOD, handler_pb2.Progress(message="artefact"))
    assert [file.name for file in run.artefacts] == ["report.csv"]
    assert list(tmp_path.iterdir()) == []
