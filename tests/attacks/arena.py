"""The arena: each attack as data, run in a sandbox of each runtime and once where a protection is missing.

An attack is a program of the obedient tool, which has a small language at hand (the `PRELUDE`):

    step("mount", call, 165, b"none", b"/tmp", b"tmpfs", 0, 0)      a system call by its x86-64 number
    step("kmsg", open, "/dev/kmsg")                                 or anything that raises OSError
    step("load", call, 175, 0, 0, b"", reached=["ENOEXEC"])         this error too means: it got through
    step("unshare", in_child, call, 272, 0x20000)                   in a process of its own

Each step notes "done", or the name of the error. That is what the judge looks at: the attack has won when
any step is done, it is stopped when every step met a refusal that the attack expects, and everything else
(another error, an exception, a crash) is an error of the test. A program that puts something else into
`answer` brings predicates of its own (`won`, `stopped`); one that is judged from outside brings a `judge`.

The control runs the same program, with the same judge, in a container of runc that lacks the named measures
or has some that weaken it. There the attack has to win, by each of the steps named in `wins` (all of them
unless it says otherwise).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandboxes.docker_driver import DockerDriver
from sandboxes.hardening import MEASURES, Measure
from sandboxes.outcome import RawOutcome, refuse_to_sign
from sandboxes.sandbox import Driver, Sandbox
from tests.attacks import families
from tests.parts.engine import Obedient, answer_of

RUNTIMES = ("docker-runc", "docker-runsc", "bubblewrap")
CONTROL = "control"
DEADLINE_SECONDS = 20.0

PRELUDE = """
import ctypes, errno, json, os, signal, struct, time
libc = ctypes.CDLL(None, use_errno=True)
steps = {}

def step(name, function, *arguments, reached=(), **named):
    try:
        function(*arguments, **named)
    except OSError as error:
        kind = getattr(error, "kind", None) or errno.errorcode.get(error.errno, type(error).__name__)
        steps[name] = "done" if kind in reached else kind
    else:
        steps[name] = "done"

def call(number, *arguments):
    ctypes.set_errno(0)
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    if -4096 < result < 0:  # a call of 32 bits gives -errno itself
        code = (ctypes.get_errno() or 1) if result == -1 else -result
        raise OSError(code, os.strerror(code))
    return result

def in_child(function, *arguments):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os.write(tell, b"0")
        except OSError as error:
            os.write(tell, str(error.errno or errno.EIO).encode())
        except BaseException as error:
            os.write(tell, repr(error).encode())
        finally:
            os._exit(0)
    os.close(tell)
    code = os.read(told, 200)
    os.close(told)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        error = OSError("killed")
        error.kind = "killed by " + signal.Signals(os.WTERMSIG(status)).name
        raise error
    if not code and status:  # nothing is told where it executed a program
        raise OSError(errno.EIO, "the program failed")
    if code not in (b"", b"0"):
        raise OSError(int(code), os.strerror(int(code)))

def touch(path, mode="r+b"):
    open(path, mode, buffering=0).close()

def write(path, text):
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())
"""
_EPILOGUE = '\nif answer == "":\n    answer = json.dumps(steps)\n'

DENIED = frozenset({"EPERM", "EACCES"})
"""The refusals of every filter and of every missing right."""
UNKNOWN = frozenset({"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENODEV", "ENOTSUP"})
"""The refusals of a kernel, or of gVisor, that does not know the thing at all."""
ABSENT = frozenset({"ENOENT", "ENXIO", "ENOTDIR", "ESRCH"})
"""What is met where a thing is not in the sandbox at all."""
REFUSALS = DENIED | UNKNOWN


@dataclass(frozen=True)
class Verdict:
    """How an attack ended.

    Attributes:
        won: Whether the attacker got what it wanted.
        told: What it saw, for people.
        stopped: Whether it met what was expected to stop it; neither this nor `won` is an error of the test.
    """

    won: bool
    told: str
    stopped: bool | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it did not win, for the expected reason."""
        return not self.won if self.stopped is None else self.stopped and not self.won


@dataclass(frozen=True)
class Control:
    """How a sandbox of runc is weakened so that the attack works.

    Attributes:
        without: Names of measures that are taken away; these are what stops the attack under runc.
        add: Measures that weaken it; they come last, so they replace others of the same setting.
        binds: What is bind-mounted: by target the name of one of the host's values, which is the source.
        limits: Limits that are raised.
        says: For the table, where the names alone do not tell; required of a `ground`.
        ground: Makes another place altogether, instead of a container.
    """

    without: tuple[str, ...] = ()
    add: tuple[Measure, ...] = ()
    binds: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    says: str = ""
    ground: Callable[[Ground], AbstractAsyncContextManager[Ground]] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.without) - {measure.name for measure in MEASURES}
        assert not unknown, f"no such measure: {unknown}"

    def measures(self, values: Mapping[str, Any]) -> list[Measure]:
        """The measures that are left, and those that weaken."""
        kept = [measure for measure in MEASURES if measure.name not in self.without]
        binds = [f"{values[name]}:{target}" for target, name in self.binds.items()]
        return [*kept, *self.add, Measure("bind", "HostConfig.Binds", lambda spec: binds, "nothing")]

    @asynccontextmanager
    async def weaken(self, ground: Ground) -> AsyncIterator[Ground]:
        """Make a ground whose containers are weakened like this."""
        obedient = ground.obedient
        assert isinstance(obedient, Obedient), "controls run on the engine"
        measures = self.measures(ground.values)
        driver = DockerDriver(obedient.engine, obedient.installation, 2, measures=measures)
        try:
            yield replace(ground, driver=driver).within(**self.limits)
        finally:
            await driver.close()


@dataclass(frozen=True)
class Ground:
    """Where an attack runs: sandboxes of one runtime, or of the weakened control.

    Attributes:
        runtime: One of RUNTIMES, or CONTROL.
        obedient: Makes the obedient tool's specs and Start frames, for `driver`.
        driver: Makes the sandboxes.
        values: What the host's side of the attack gives to the program, by name; `socket_dir` becomes the
            sandbox's socket folder.
    """

    runtime: str
    obedient: Any  # Obedient, or BubblewrapTool under bubblewrap
    driver: Driver
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_control(self) -> bool:
        """Whether a protection is missing here."""
        return self.runtime == CONTROL

    def within(self, **limits: int) -> Ground:
        """The same with other limits."""
        return replace(self, obedient=self.obedient.within(**limits))

    def program(self, source: str) -> str:
        """Give a program the prelude and the host's values."""
        given = "".join(f"{name} = {value!r}\n" for name, value in self.values.items())
        return PRELUDE + given + source + _EPILOGUE

    @asynccontextmanager
    async def create(self, **changes: Any) -> AsyncIterator[Sandbox]:
        """Make a sandbox of the obedient tool; `changes` are fields of its spec, such as socket_dir."""
        if "socket_dir" in self.values:
            changes = {"socket_dir": Path(self.values["socket_dir"]), **changes}
        spec = replace(self.obedient.spec(), uid=self.driver.allocate_uid(), **changes)
        async with self.driver.create(spec, "attack") as sandbox:
            yield sandbox

    async def tell(self, sandbox: Sandbox, source: str, seconds: float = DEADLINE_SECONDS) -> RawOutcome:
        """Run a program in a sandbox of `create`."""
        return await sandbox.run(self.obedient.start(self.program(source)), seconds, refuse_to_sign)

    async def run(self, source: str, seconds: float = DEADLINE_SECONDS, **changes: Any) -> RawOutcome:
        """Run a program in a sandbox of its own."""
        async with self.create(**changes) as sandbox:
            return await self.tell(sandbox, source, seconds)

    async def answer(self, source: str, seconds: float = DEADLINE_SECONDS, **changes: Any) -> str:
        """Run a program in a sandbox of its own; gives what it put into `answer`."""
        return answer_of(await self.run(source, seconds, **changes))


Judge = Callable[["Attack", Ground], Awaitable[Verdict]]
Host = Callable[[Ground], AbstractAsyncContextManager[Mapping[str, Any]]]


@dataclass(frozen=True)
class Attack:
    """One thing that a hostile tool tries.

    Attributes:
        name: What tests and the table call it; unique.
        family: The module that it stands in.
        goal: What the attacker wants, one line.
        program: Python source; see the module.
        control: How a sandbox is weakened so that it works.
        stops: What stops it, by runtime, for the table; "" stands for all that are not named; where that is
            missing, too, it is what `control` takes away.
        refusals: Errors that a stopped step may meet.
        wins: Steps that have to be done in the control; none stands for all.
        won: Tells from `answer` that it worked; None: any step is done.
        stopped: Tells from `answer` that it was stopped as expected; None: each step met a refusal.
        judge: Judges from outside instead.
        host: Prepares something on the host, and gives its values to the program (`Ground.values`).
        spec: Fields of the sandbox's spec that differ.
        limits: Limits that differ, in each runtime and in the control.
        probe: Says why it does not apply on this kernel; None when it does.
        not_on: Why it does not apply under a runtime.
        harmless: Steps that a runtime lets through and that give nothing there; `stops` says why.
        findings: What is still to be done where a runtime does not stop it. Such a test is expected to fail,
            and fails when it does not.
    """

    name: str
    family: str
    goal: str
    program: str
    control: Control
    stops: Mapping[str, str] = field(default_factory=dict)
    refusals: frozenset[str] = REFUSALS
    wins: tuple[str, ...] = ()
    won: Callable[[str], bool] | None = None
    stopped: Callable[[str], bool] | None = None
    judge: Judge | None = None
    host: Host | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    probe: Callable[[], str | None] | None = None
    not_on: Mapping[str, str] = field(default_factory=dict)
    harmless: Mapping[str, frozenset[str]] = field(default_factory=dict)
    findings: Mapping[str, str] = field(default_factory=dict)

    def what_stops(self, runtime: str) -> str:
        """Say what stops it under a runtime."""
        if runtime in self.findings:
            return f"**not stopped**: {self.findings[runtime]}"
        if runtime in self.not_on:
            return f"does not apply: {self.not_on[runtime]}"
        if runtime in self.stops:
            return self.stops[runtime]
        return self.stops.get("", ", ".join(self.control.without))

    async def try_on(self, ground: Ground) -> Verdict:
        """Run it and judge it."""
        ground = ground.within(**self.limits)
        async with self.host(ground) if self.host else nullcontext({}) as values:
            ground = replace(ground, values=values)
            if not ground.is_control:
                return await self._judge(ground)
            async with (self.control.ground or self.control.weaken)(ground) as open_ground:
                return await self._judge(open_ground)

    async def _judge(self, ground: Ground) -> Verdict:
        if self.judge is not None:
            return await self.judge(self, ground)
        answer = await ground.answer(self.program, **self.spec)
        if self.won is not None:
            return Verdict(self.won(answer), answer, None if self.stopped is None else self.stopped(answer))
        return self._judge_steps(json.loads(answer), ground)

    def _judge_steps(self, steps: dict[str, str], ground: Ground) -> Verdict:
        assert steps, f"{self.name}: the program took no step"
        harmless = self.harmless.get(ground.runtime, frozenset())
        steps = {name: ended for name, ended in steps.items() if name not in harmless}
        done = {name for name, ended in steps.items() if ended == "done"}
        needed = set(self.wins or steps) if ground.is_control else set()
        won = bool(done) and needed <= done
        stopped = all(ended in self.refusals for ended in steps.values())
        return Verdict(won, json.dumps(steps), stopped)


def load_attacks() -> tuple[Attack, ...]:
    """All attacks, family by family."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    modules = [importlib.import_module(f"{families.__name__}.{name}") for name in names]
    found: Sequence[Attack] = [attack for module in modules for attack in module.ATTACKS]
    doubled = {attack.name for attack in found if sum(other.name == attack.name for other in found) > 1}
    assert not doubled, f"two attacks have one name: {doubled}"
    return tuple(found)
