"""Tools that will not end: at their deadline, after their answer, or when the frames are closed."""

from __future__ import annotations

from tests.attacks.arena import Attack, Control
from tests.attacks.survivors import STAYING, outlives

FAMILY = "stubborn"
ENDS = {"": "init is PID 1: its end, at the deadline or with the handler, is the end of every process"}
STAYS = Control(add=(STAYING,), says="own-init: the first process is another one and stays")

IGNORE = """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
"""

FOREVER = "while True:\n    time.sleep(60)\n"

DAEMON = """
def daemon(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()

def sleep():
    while True:
        time.sleep(60)
"""


def _stubborn(name: str, goal: str, program: str, *, unattended: bool = False) -> Attack:
    return Attack(name, FAMILY, goal, program, STAYS, ENDS, judge=outlives(unattended=unattended))


ATTACKS: tuple[Attack, ...] = (
    _stubborn("sleeps past its deadline", "time that it was not given", FOREVER),
    _stubborn("ignores every signal", "time that it was not given", IGNORE + FOREVER),
    _stubborn(
        "works past its deadline", "a processor that it was not given", "while True:\n    len(range(1000))\n"
    ),
    _stubborn(
        "forks twice", "a process that nobody knows as its child", DAEMON + "daemon(sleep)\n" + FOREVER
    ),
    _stubborn(
        "leads a session of its own",
        "a process that no signal to its group reaches",
        IGNORE + "if os.fork() == 0:\n    os.setsid()\n\n" + FOREVER,
    ),
    _stubborn(
        "stops itself and its group",
        "a process that handles no signal",
        "if os.fork() == 0:\n    time.sleep(60)\nos.kill(0, signal.SIGSTOP)\n" + FOREVER,
    ),
    _stubborn(
        "leaves a daemon behind its answer",
        "work after the call, with the call's credentials",
        DAEMON + "daemon(sleep)\nanswer = 'done'\n",
    ),
    _stubborn(
        "leaves its frames to a grandchild",
        "an answer that nobody stops waiting for",
        DAEMON + "daemon(sleep)\nos._exit(0)\n",
    ),
    _stubborn(
        "closes its frames and goes on",
        "work after the call",
        IGNORE + "for number in (0, 1, 2, 3, 4):\n    os.close(number)\n" + FOREVER,
    ),
    _stubborn(
        "blocks in the kernel",
        "a process in a wait that no signal handler ends",
        """
import fcntl, threading
def wait_in_spawn():
    file = os.open("/tmp/leased", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    open_leased = (os.POSIX_SPAWN_OPEN, 9, "/tmp/leased", os.O_RDONLY, 0)  # waits until the lease is broken
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[open_leased])
"""
        + IGNORE
        + """
try:
    wait_in_spawn()
except OSError:
    pass
"""
        + FOREVER,
    ),
    _stubborn(
        "calls itself something else",
        "a process that is taken for another one",
        DAEMON
        + """
def hide():
    libc.prctl(15, b"systemd", 0, 0, 0)
    sleep()
daemon(hide)
libc.prctl(15, b"kworker/0:1", 0, 0, 0)
"""
        + FOREVER,
    ),
    _stubborn(
        "is always another process",
        "a process whose id is gone before it is killed",
        """
def relay():
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.002)
if os.fork() == 0:
    relay()
"""
        + FOREVER,
    ),
    _stubborn(
        "comes back when it is killed",
        "processes that start each other again",
        IGNORE
        + """
def guard(other):
    while True:
        try:
            os.kill(other, 0)
        except OSError:
            pass
        time.sleep(0.01)
pair = os.getpid()
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
        guard(pair)
"""
        + FOREVER,
    ),
    _stubborn(
        "floods while it is killed",
        "an end that waits for a reader",
        "for sink in (1, 2):\n    if os.fork() == 0:\n        while True:\n"
        "            os.write(sink, bytes(65536))\n" + FOREVER,
    ),
    _stubborn(
        "goes on while nobody reads",
        "time after a broker that is stuck",
        IGNORE
        + """
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        while True:
            os.write(2, bytes(65536))
"""
        + FOREVER,
        unattended=True,
    ),
)
