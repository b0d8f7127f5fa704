"""The driver on a real engine: what a sandbox gives back, and that nothing of it stays."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION, MEASURES, container_config
from sandboxes.outcome import OutcomeKind, SandboxSpec, SandboxUnavailable
from sandboxes.runtimes import RUNC, RUNSC, Runtime
from tests.parts.engine import COMMAND, Obedient, TestLimits, answer_of
from toolcrib.handler.v1 import handler_pb2

pytestmark = pytest.mark.engine


async def test_gives_the_response_of_the_handler(obedient: Obedient) -> None:
    assert await obedient.answer("answer = 6 * 7") == "42"


async def test_confirms_that_the_container_is_gone(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        assert sandbox.gone is None
        assert await driver.leftovers() == [sandbox.container_id]
    assert sandbox.gone is not None
    assert sandbox.gone >= sandbox.made
    assert await driver.leftovers() == []


async def test_removes_a_container_that_was_never_used(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        pass
    assert sandbox.gone is not None


async def test_removes_the_container_when_the_caller_raises(obedient: Obedient, driver: DockerDriver) -> None:
    with pytest.raises(ZeroDivisionError):
        async with driver.create(obedient.spec(), "call"):
            raise ZeroDivisionError
    assert await driver.leftovers() == []


@pytest.mark.parametrize("after_seconds", [0.0, 0.02, 0.1, 0.4])
async def test_removes_the_container_when_cancelled(
    obedient: Obedient, driver: DockerDriver, after_seconds: float
) -> None:
    call = asyncio.create_task(obedient.run("import time; time.sleep(60)", deadline_seconds=30))
    await asyncio.sleep(after_seconds)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await driver.leftovers() == []


async def test_gives_progress_in_order(obedient: Obedient, driver: DockerDriver) -> None:
    seen: list[tuple[str, int]] = []
    program = "context.progress('one', 10); context.progress('two', 20)"
    async with driver.create(obedient.spec(), "call") as sandbox:
        await sandbox.run(
            obedient.start(program), 10, on_progress=lambda p: seen.append((p.message, p.percent))
        )
    assert seen == [("one", 10), ("two", 20)]


async def test_keeps_what_the_tool_prints_as_an_escaped_log(obedient: Obedient) -> None:
    outcome = await obedient.run(r"print('a\x1b[2Jb\u202ec')")
    assert outcome.log == "a\\x1b[2Jb\\u202ec\n"


async def test_gives_the_failure_of_the_handler(obedient: Obedient) -> None:
    program = (
        "from toolcrib.handler import Failure\nraise Failure('ORDER_UNKNOWN', 'none such', retryable=True)"
    )
    outcome = await obedient.run(program)
    assert outcome.kind is OutcomeKind.FAILURE
    assert outcome.failure == handler_pb2.Failure(
        code="ORDER_UNKNOWN", message="none such", retryable=True, effect=handler_pb2.EFFECT_NONE
    )


async def test_calls_an_unexpected_exception_an_unknown_effect(obedient: Obedient) -> None:
    outcome = await obedient.run("raise KeyError('secret dsn')")
    assert outcome.failure is not None
    assert outcome.failure.code == "HANDLER_ERROR"
    assert outcome.failure.effect == handler_pb2.EFFECT_UNKNOWN
    assert "secret" not in outcome.failure.message
    assert "secret dsn" in outcome.log


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("import os; os._exit(0)", "without a result"),
        ("import os; os._exit(3)", "ended without a result"),
        ("import os; os.kill(os.getpid(), 9)", "ended without a result"),
        ("import os; os.close(4); import time; time.sleep(60)", "ended without a result"),
        ("import os; os.write(4, b'\\0\\0\\0\\2\\xff\\xff'); import time; time.sleep(60)", "no frame"),
        ("import os; os.write(4, b'\\0\\0\\0\\0'); import time; time.sleep(60)", "unknown frame"),
        ("x = bytearray(300 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1", "out of memory"),
    ],
)
async def test_calls_an_end_without_result_a_crash(obedient: Obedient, program: str, detail: str) -> None:
    outcome = await obedient.run(program)
    assert outcome.kind is OutcomeKind.CRASHED
    assert detail in outcome.detail


async def test_says_in_the_log_that_the_handler_failed(obedient: Obedient) -> None:
    outcome = await obedient.run("import os; os.kill(os.getpid(), 11)")
    assert outcome.log.endswith("init: the handler ended with an error\n")


async def test_ends_at_the_deadline(obedient: Obedient) -> None:
    outcome = await obedient.run("import time; time.sleep(60)", deadline_seconds=1)
    assert outcome.kind is OutcomeKind.TIMED_OUT


async def test_calls_a_vanished_sandbox_a_crash(
    obedient: Obedient, driver: DockerDriver, engine: Engine
) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        call = asyncio.create_task(sandbox.run(obedient.start("import time; time.sleep(60)"), 30))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(engine.client.remove_container, sandbox.container_id, force=True)
        outcome = await call
    assert outcome.kind is OutcomeKind.CRASHED
    assert "vanished" in outcome.detail or "from outside" in outcome.detail
    assert sandbox.gone is not None


async def test_calls_a_handler_that_cannot_start_a_crash(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(command=["no-such-program"]), "call") as sandbox:
        outcome = await sandbox.run(obedient.start(""), 10)
    assert outcome.kind is OutcomeKind.CRASHED
    assert "could not be started" in outcome.detail
    assert "no-such-program" in outcome.log


async def test_is_unavailable_for_an_unknown_image(driver: DockerDriver) -> None:
    spec = SandboxSpec("sha256:" + "0" * 64, COMMAND, TestLimits(), None, driver.allocate_uid())
    with pytest.raises(SandboxUnavailable):
        async with driver.create(spec, "call"):
            pytest.fail("made a container of nothing")
    assert await driver.leftovers() == []


async def test_never_gives_a_uid_twice(driver: DockerDriver) -> None:
    uids = [driver.allocate_uid() for _ in range(1000)]
    assert len(set(uids)) == 1000
    assert min(uids) >= 100_000_000
    assert max(uids) < 2**31


async def test_labels_only_installation_and_epoch(
    obedient: Obedient, driver: DockerDriver, engine: Engine, installation: str
) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        found = await asyncio.to_thread(engine.client.inspect_container, sandbox.container_id)
    image = await asyncio.to_thread(engine.client.inspect_image, obedient.image)
    own = found["Config"]["Labels"].items() - image["Config"]["Labels"].items()
    assert dict(own) == {LABEL_INSTALLATION: installation, LABEL_EPOCH: "2"}


async def test_reaps_another_epoch_of_its_installation_only(
    obedient: Obedient, driver: DockerDriver, engine: Engine, installation: str
) -> None:
    before = DockerDriver(engine, installation, epoch=1)
    other = DockerDriver(engine, installation + "-other", epoch=1)
    spec = obedient.spec()
    async with before.create(spec, "old") as old, other.create(spec, "other") as strange:
        async with driver.create(spec, "now") as current:
            assert await driver.reap() == [old.container_id]
            assert await driver.leftovers() == [current.container_id]
            assert await other.leftovers() == [strange.container_id]
    await before.close()
    await other.close()


async def test_ends_a_container_by_its_record(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        assert await driver.end_container(sandbox.container_id)
        assert await driver.leftovers() == []


async def test_ends_no_container_of_another_installation(obedient: Obedient, engine: Engine) -> None:
    other = DockerDriver(engine, "test-other", epoch=1)
    async with obedient.driver.create(obedient.spec(), "call") as sandbox:
        with pytest.raises(SandboxUnavailable, match="another installation"):
            await other.end_container(sandbox.container_id)
        assert answer_of(await sandbox.run(obedient.start("answer = 'alive'"), 10)) == "alive"
    await other.close()


async def test_a_leak_is_seen(obedient: Obedient, driver: DockerDriver, engine: Engine) -> None:
    """The negative test of the `driver` fixture: a container that nobody removed shows up."""
    labels = {LABEL_INSTALLATION: obedient.installation, LABEL_EPOCH: "2"}
    config = {"Image": obedient.image, "Entrypoint": ["/usr/bin/python3"], "Labels": labels}
    leaked = engine.client.create_container_from_config(config, None)["Id"]
    try:
        assert await driver.leftovers() == [leaked]
    finally:
        engine.client.remove_container(leaked, force=True)


async def test_serves_several_at_once(obedient: Obedient) -> None:
    answers = await asyncio.gather(*(obedient.answer(f"answer = {number}") for number in range(6)))
    assert answers == [str(number) for number in range(6)]


async def test_loads_the_handler_before_the_call(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(), "warm") as sandbox:
        await sandbox.warm_up(10)
        assert sandbox.is_alive
        assert answer_of(await sandbox.run(obedient.start("answer = 6 * 7"), 10)) == "42"
        assert not sandbox.is_alive


async def test_is_not_warm_when_the_handler_ends_at_import(obedient: Obedient, driver: DockerDriver) -> None:
    spec = obedient.spec(command=["python3", "-c", "raise SystemExit('no licence')"])
    async with driver.create(spec, "warm") as sandbox:
        with pytest.raises(SandboxUnavailable, match="no licence"):
            await sandbox.warm_up(10)


async def test_is_not_warm_when_the_handler_answers_at_import(
    obedient: Obedient, driver: DockerDriver
) -> None:
    program = (
        "from toolcrib.handler.frames import Frames\nfrom toolcrib.handler.v1 import handler_pb2 as h\n"
        "Frames().write(h.HandlerFrame(result=h.Result()))\nimport time; time.sleep(60)"
    )
    async with driver.create(obedient.spec(command=["python3", "-c", program]), "warm") as sandbox:
        with pytest.raises(SandboxUnavailable, match="sent a result before its call"):
            await sandbox.warm_up(10)


async def test_serves_no_call_once_the_handler_spoke_early(obedient: Obedient, driver: DockerDriver) -> None:
    program = (
        "import time\nfrom toolcrib.handler.frames import Frames\n"
        "from toolcrib.handler.v1 import handler_pb2 as h\n"
        "Frames().write(h.HandlerFrame(loaded=h.Loaded())); time.sleep(0.3)\n"
        "Frames().write(h.HandlerFrame(result=h.Result())); time.sleep(60)"
    )
    async with driver.create(obedient.spec(command=["python3", "-c", program]), "warm") as sandbox:
        await sandbox.warm_up(10)
        await asyncio.sleep(1.0)
        assert not sandbox.is_alive
        outcome = await sandbox.run(obedient.start(""), 10)
    assert outcome.kind is OutcomeKind.CRASHED


async def test_counts_the_processor_time_of_a_sandbox(obedient: Obedient, driver: DockerDriver) -> None:
    async with driver.create(obedient.spec(), "call") as sandbox:
        await sandbox.warm_up(10)
        before = sandbox.cpu_seconds()
        program = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
        await sandbox.run(obedient.start(program), 10)
        after = sandbox.cpu_seconds()
    assert before is not None
    assert after is not None
    assert 0.25 < after - before < 1.0


async def test_marks_a_log_that_was_cut(obedient: Obedient) -> None:
    outcome = await obedient.within(log_kib=1).run("print('x' * 3000)")
    assert outcome.log_truncated
    assert outcome.log == "x" * 1024 + "\n[the rest was dropped]"


@pytest.mark.parametrize("runtime", [RUNC, RUNSC], ids=lambda runtime: runtime.name)
async def test_has_every_setting_as_the_engine_understood_it(
    obedient: Obedient, engine: Engine, installation: str, runtime: Runtime
) -> None:
    """An engine ignores a key that it does not know, without a word."""
    driver = DockerDriver(engine, installation, epoch=2, runtime=runtime)
    if runtime.runtime not in engine.info().runtimes:
        pytest.skip(f"the engine has no {runtime.runtime}")
    spec = obedient.spec(driver)
    async with driver.create(spec, "call") as sandbox:
        found = await asyncio.to_thread(engine.client.inspect_container, sandbox.container_id)
    await driver.close()
    wanted = container_config(spec, {}, runtime=runtime)
    for measure in MEASURES:
        if measure.name in runtime.dropped:
            continue
        there, asked = ({**found["Config"], "HostConfig": found["HostConfig"]}, wanted)
        for key in measure.setting.split("."):
            there, asked = there[key], asked[key]
        if isinstance(asked, dict):
            there = {key: there.get(key) for key in asked}
        assert (there or asked.__class__()) == asked, measure.name
