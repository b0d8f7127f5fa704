"""Attacks on init, which has the tool's uid and holds its deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandboxes.docker_driver import DockerDriver
from sandboxes.outcome import OutcomeKind
from sandboxes.sandbox import Sandbox
from tests.attacks.arena import ABSENT, REFUSALS, Attack, Control, Ground, Verdict
from tests.attacks.weakened import (
    CARELESS_INIT,
    INIT_BELOW,
    LEAKING_INIT,
    NO_FILTER,
    TIMELESS_INIT,
    UNFILTERED,
)

NOT_THERE = REFUSALS | ABSENT
NOT_DUMPABLE = {"": "init cannot be dumped", "docker-runsc": "no /proc at all"}
NOT_DUMPABLE_OR_FILTERED = {"": "init cannot be dumped; filter"}
DEADLINE = {"": "init's deadline, without a blocking write"}
CARELESS = Control(add=(CARELESS_INIT,))
CARELESS_UNFILTERED = Control(("seccomp",), (NO_FILTER, CARELESS_INIT))
TIMELESS = Control(add=(TIMELESS_INIT,))
_VECTORS = """
buffer = ctypes.create_string_buffer(8)
here = struct.pack("QQ", ctypes.addressof(buffer), 8)
there = struct.pack("QQ", 0x400000, 8)
"""
BEGIN = "os.write(2, b'begun')\ntime.sleep(0.2)\n"
# A signal that the kernel sends for the owner of a socket, not for who calls.
BY_OWNER = """
def by_owner(number):
    import socket
    one, other = socket.socketpair()
    for command, value in ((8, init), (10, number), (4, 0x2000)):
        call(72, one.fileno(), command, value)
    other.send(b"x")
"""
_GRACE_SECONDS = 3.0
"""The most after a deadline of one second until nothing of a sandbox may run, on a busy machine."""


async def is_running(ground: Ground, sandbox: Sandbox) -> bool:
    """Ask the engine, or the kernel, whether anything of a sandbox runs."""
    if isinstance(ground.driver, DockerDriver):
        client = ground.obedient.engine.client
        state = await asyncio.to_thread(client.inspect_container, sandbox.container_id)
        return bool(state["State"]["Running"])
    return any(_uid_of(folder) == sandbox.uid for folder in Path("/proc").glob("[0-9]*"))


def _uid_of(folder: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    except OSError:
        return None
    return None if lines["State"].split()[0] == "Z" else int(lines["Uid"].split()[0])


async def judge_by_deadline(attack: Attack, ground: Ground) -> Verdict:
    """It wins when anything of it runs after its deadline, while nobody outside ends it."""
    async with ground.create() as sandbox:
        outcome = await ground.tell(sandbox, BEGIN + attack.program, 1.0)
        for _ in range(10 if ground.is_control else int(_GRACE_SECONDS / 0.1)):
            if not (runs := await is_running(ground, sandbox)):
                break
            await asyncio.sleep(0.1)
    told = f"{outcome.kind}: {outcome.detail}; running afterwards: {runs} {outcome.log[:200]}"
    # gVisor's kernel may end by itself in a storm of processes.
    early = outcome.kind is OutcomeKind.CRASHED and "begun" in outcome.log and "runsc" in ground.runtime
    return Verdict(runs, told, early or outcome.kind is OutcomeKind.TIMED_OUT)


async def judge_by_answer(attack: Attack, ground: Ground) -> Verdict:
    """It wins when no answer comes any more, because init is gone or frozen."""
    outcome = await ground.run(attack.program, 3.0)
    told = f"{outcome.kind}: {outcome.detail} {outcome.log[:200]}"
    assert "begun" in outcome.log, told
    if outcome.kind is not OutcomeKind.RESULT:
        assert outcome.kind is not OutcomeKind.FAILURE, told
        return Verdict(True, told)
    return Verdict(False, told, b"still here" in outcome.response)


def _endless(body: str) -> str:
    """Do it for ever; errors are the program's own to ignore."""
    lines = "\n".join(f"        {line}" for line in body.strip().splitlines())
    return f"import threading\nwhile True:\n    try:\n{lines}\n    except OSError:\n        pass\n"


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "opens init's memory",
        "init",
        "another deadline, written into its memory",
        """
step("mem", touch, "/proc/1/mem")
step("mem, read", touch, "/proc/1/mem", "rb")
step("mem of a thread", touch, "/proc/1/task/1/mem")
for name in ("maps", "smaps", "auxv", "environ", "pagemap", "numa_maps", "personality", "syscall", "stack"):
    step(name, lambda: open("/proc/1/" + name, "rb", buffering=0).read(1))
step("map_files", os.listdir, "/proc/1/map_files")
""",
        CARELESS,
        NOT_DUMPABLE,
        refusals=NOT_THERE | {"EINVAL"},
        wins=("mem", "mem, read", "maps", "environ"),
    ),
    Attack(
        "writes init's memory by a system call",
        "init",
        "another deadline, by process_vm_writev",
        _VECTORS
        + """
step("read", call, 310, 1, here, 1, there, 1, 0, reached=["EFAULT"])
step("write", call, 311, 1, here, 1, there, 1, 0, reached=["EFAULT"])
""",
        CARELESS_UNFILTERED,
        NOT_DUMPABLE_OR_FILTERED,
    ),
    Attack(
        "traces init",
        "init",
        "its registers and calls, or its stop",
        """
def attach():
    call(101, 16, 1, 0, 0)
    os.waitpid(1, 0x40000000)
    call(101, 17, 1, 0, 0)  # or init would stay stopped, and nothing could be told
step("attach", in_child, attach)
step("seize", in_child, call, 101, 0x4206, 1, 0, 0)
""",
        CARELESS_UNFILTERED,
        NOT_DUMPABLE_OR_FILTERED,
    ),
    Attack(
        "looks at init's descriptors",
        "init",
        "the ways to the broker, by name",
        """
step("list", os.listdir, "/proc/1/fd")
step("information", os.listdir, "/proc/1/fdinfo")
for name in ("fd/0", "fd/1", "fd/2", "exe", "cwd", "root"):
    step(name, os.readlink, "/proc/1/" + name)
""",
        CARELESS,
        NOT_DUMPABLE,
        refusals=NOT_THERE,
    ),
    Attack(
        "takes the broker's orders in init's place",
        "init",
        "what is for init on its stdin, and a stdin that never closes",
        """
step("read", lambda: os.close(os.open("/proc/1/fd/0", os.O_RDONLY | os.O_NONBLOCK)), reached=["ENXIO"])
step("hold", lambda: os.close(os.open("/proc/1/fd/0", os.O_RDWR | os.O_NONBLOCK)), reached=["ENXIO"])
""",
        CARELESS,
        NOT_DUMPABLE,
        refusals=REFUSALS | {"ENOENT"},
    ),
    Attack(
        "speaks in init's name",
        "init",
        "frames and exit codes that the broker believes, past the caps",
        """
for number in (1, 2):
    step(f"descriptor {number}", touch, f"/proc/1/fd/{number}", "wb", reached=["ENXIO"])
""",
        CARELESS,
        NOT_DUMPABLE,
        refusals=REFUSALS | {"ENOENT"},
    ),
    Attack(
        "copies init's stdin",
        "init",
        "a stdin that stays open when the broker dies, by pidfd_getfd",
        """
def copy(number):
    os.close(call(438, os.pidfd_open(1), number, 0))
step("stdin", copy, 0)
step("stdout", copy, 1)
""",
        CARELESS_UNFILTERED,
        NOT_DUMPABLE_OR_FILTERED,
    ),
    Attack(
        "finds a descriptor that init forgot",
        "init",
        "what was open before it began",
        """
for number in range(5, 1024):
    step(str(number), os.fstat, number)
""",
        Control(add=(LEAKING_INIT,)),
        {"": "init closes what it has before the handler begins"},
        refusals=frozenset({"EBADF"}),
        wins=("20", "21", "22"),
    ),
    Attack(
        "limits init",
        "init",
        "its end by a limit: no processor time, no files, no memory",
        """
limits = {"processor time": 0, "file size": 1, "open files": 7, "memory": 9, "processes": 6}
for name, number in limits.items():
    held = ctypes.create_string_buffer(16)
    step("read " + name, call, 302, 1, number, 0, held)
    step(name, call, 302, 1, number, held, 0)
""",
        UNFILTERED,
        {"": "filter"},
    ),
    Attack(
        "slows init down",
        "init",
        "a later deadline, by priority, processor or scheduler",
        """
step("setpriority", os.setpriority, os.PRIO_PROCESS, 1, 19)
step("of its uid", os.setpriority, os.PRIO_USER, os.getuid(), 19)
step("affinity", os.sched_setaffinity, 1, {0})
step("scheduler", os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))
step("attributes", call, 314, 1, struct.pack("IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0)
step("ioprio_set", call, 251, 1, 1, 3 << 13)
step("of its uid to disk", call, 251, 3, os.getuid(), 3 << 13)
""",
        UNFILTERED,
        {"": "filter"},
    ),
    Attack(
        "offers init to the kernel's killer",
        "init",
        "init's end when memory ends, instead of its own",
        """
step("oom_score_adj", write, "/proc/1/oom_score_adj", "1000")
step("timerslack_ns", write, "/proc/1/timerslack_ns", "1000000000")
for name in ("coredump_filter", "clear_refs", "sched", "autogroup", "comm",
             "setgroups", "uid_map", "projid_map", "loginuid", "timens_offsets"):
    step(name, touch, "/proc/1/" + name)
""",
        CARELESS,
        NOT_DUMPABLE,
        refusals=NOT_THERE | {"EROFS"},
        wins=("oom_score_adj", "coredump_filter"),
    ),
    Attack(
        "kills init",
        "init",
        "its end, by any signal and any call",
        BEGIN
        + BY_OWNER
        + """
init = os.getppid()
names = [number for number in range(1, 65) if number not in (19, 20, 21, 22)]
for number in names:
    for way in (lambda: os.kill(init, number), lambda: call(234, init, init, number),
                lambda: call(200, init, number),
                lambda: signal.pidfd_send_signal(os.pidfd_open(init), number)):
        try: way()
        except OSError: pass
for ways in (129, 297):
    try: call(ways, init, 9, ctypes.create_string_buffer(struct.pack("iii", 9, 0, -1) + bytes(116)))
    except OSError: pass
for number in (9, 15, 29):
    try: by_owner(number)
    except OSError: pass
time.sleep(0.3)
answer = "still here"
""",
        Control(add=(INIT_BELOW,)),
        {"": "the kernel protects PID 1; init sets no handler but for SIGCHLD"},
        judge=judge_by_answer,
    ),
    Attack(
        "freezes init",
        "init",
        "time past its deadline, by stop signals",
        BEGIN
        + BY_OWNER
        + """
init = os.getppid()
for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSTOP):
    for way in (lambda: os.kill(init, number), lambda: call(234, init, init, number),
                lambda: by_owner(number)):
        try: way()
        except OSError: pass
time.sleep(0.3)
answer = "still here"
""",
        Control(add=(INIT_BELOW,)),
        {"": "the kernel protects PID 1"},
        judge=judge_by_answer,
    ),
    Attack(
        "stops init without a pause",
        "init",
        "time past its deadline, by a storm of stop signals and processes",
        """
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
"""
        + _endless(
            """
if os.fork() == 0:
    while True:
        os.kill(1, signal.SIGSTOP)
time.sleep(0.01)
"""
        ),
        TIMELESS,
        {"": "the kernel protects PID 1; processor time is shared out"},
        judge=judge_by_deadline,
    ),
    Attack(
        "storms init with the signal that it handles",
        "init",
        "an init that does nothing but wake up",
        "os.fork()\nos.fork()\n" + _endless("while True:\n    os.kill(1, signal.SIGCHLD)"),
        TIMELESS,
        {"": "a handler that does nothing; the clock is read each time"},
        judge=judge_by_deadline,
    ),
    Attack(
        "keeps init busy with dead children",
        "init",
        "an init that does nothing but reap",
        _endless(
            """
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
os.wait()
"""
        ),
        TIMELESS,
        {"": "the clock is read between the steps; the limit of processes"},
        judge=judge_by_deadline,
    ),
    Attack(
        "fills init's pipes",
        "init",
        "an init that blocks on a write and forgets the time",
        "block = b'x' * 65536\n" + _endless("while True:\n    os.write(2, block)"),
        TIMELESS,
        DEADLINE,
        judge=judge_by_deadline,
    ),
    Attack(
        "reads nothing and says half a frame",
        "init",
        "an init that waits for the rest",
        "os.write(4, bytes([0, 0, 1, 0]) + b'half')\n" + _endless("time.sleep(60)"),
        TIMELESS,
        DEADLINE,
        judge=judge_by_deadline,
    ),
    Attack(
        "leaves processes behind when its deadline comes",
        "init",
        "a process of its own session, which ignores every signal",
        """
libc.prctl(36, 1, 0, 0, 0)
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(60)
        os._exit(0)
"""
        + _endless("time.sleep(60)"),
        TIMELESS,
        {"": "the end of PID 1 ends its namespace"},
        judge=judge_by_deadline,
    ),
)
