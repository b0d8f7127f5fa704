"""Attacks on other sandboxes: their files, processes, memory, sockets, and what an earlier one left."""

from __future__ import annotations

from sandboxes.hardening import Measure
from tests.attacks.arena import ABSENT, DENIED, REFUSALS, Attack, Control
from tests.attacks.doors import ALL_NESTS, KNOCK, in_own_nest, two_nests
from tests.attacks.residents import beside

FAMILY = "neighbours"
CANARY = {"canary": "canary-3f1c9a"}
OWN_FOLDER = {"": "a folder of its own for each call, the only one that is there"}
OWN_NAMESPACE = {"": "a namespace of its own for each sandbox"}

# What a hunt raises that came to its end and saw nothing.
HUNT = """
def nothing():
    raise OSError(errno.ENOENT, "nothing was found")

def other_processes():
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, own)]
"""

IN_PROCESSES = Control(says="it joins its neighbour's processes, as the same user")
SHAREABLE = Measure("shareable", "HostConfig.IpcMode", lambda spec: "shareable", "nothing")
NO_FILTER = Measure("no-filter", "HostConfig.SecurityOpt", lambda spec: ["seccomp=unconfined"], "nothing")
IN_MEMORY = Control(
    says="it joins its neighbour's memory, unfiltered",
    without=("no-shared-memory", "no-queues", "seccomp"),
    add=(SHAREABLE, NO_FILTER),
)

FILES = """
with open("/tmp/canary", "w") as file:
    file.write(canary)
wait()
answer = "unharmed"
"""

NAMED = """
libc.prctl(15, canary[:15].encode(), 0, 0, 0)
wait()
answer = "unharmed"
"""

SIGNALLED = """
import signal
hits = []
signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
wait()
answer = "hit" if hits else "unharmed"
"""


def _shared(create: str) -> str:
    """A resident that shares something of the kernel's, where it can."""
    return f"step('create', lambda: {create})\nwait()\nanswer = 'unharmed'\n"


_PROCESSES = (
    Attack(
        "reads another sandbox's files",
        FAMILY,
        "what another call keeps in /tmp",
        HUNT
        + """
import glob
def hunt():
    for root in ["", *glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]:
        try:
            if open(root + "/tmp/canary").read() == canary:
                return
        except OSError:
            pass
    nothing()
step("files", hunt)
""",
        IN_PROCESSES,
        OWN_NAMESPACE,
        refusals=ABSENT,
        judge=beside(FILES, "HostConfig.PidMode", same_uid=True, values=CANARY),
    ),
    Attack(
        "sees another sandbox's processes",
        FAMILY,
        "which calls run beside it",
        HUNT
        + """
def hunt():
    names = [open(f"/proc/{pid}/comm").read().strip() for pid in other_processes()]
    canary[:15] in names or nothing()
step("names", hunt)
""",
        IN_PROCESSES,
        OWN_NAMESPACE,
        refusals=ABSENT,
        judge=beside(NAMED, "HostConfig.PidMode", values=CANARY),
    ),
    Attack(
        "signals another sandbox's processes",
        FAMILY,
        "another call's end",
        """
import signal
def shoot():
    hits = 0
    for pid in range(2, 4000):
        if pid not in (os.getpid(), os.getppid()):
            try:
                os.kill(pid, signal.SIGUSR1)
                hits += 1
            except OSError as error:
                last = error
    if not hits:
        raise last
step("signal", shoot)
""",
        IN_PROCESSES,
        OWN_NAMESPACE,
        refusals=frozenset({"ESRCH"}),
        judge=beside(SIGNALLED, "HostConfig.PidMode", same_uid=True, harmed="hit"),
    ),
    Attack(
        "reads another sandbox's memory",
        FAMILY,
        "the credential of another call",
        HUNT
        + """
def first():
    return next(iter(other_processes()), 999_999)
step("mem", lambda: touch(f"/proc/{first()}/mem", "rb"))
step("environ", lambda: touch(f"/proc/{first()}/environ", "rb"))
step("trace", lambda: call(101, 0x4206, first(), 0, 0))
""",
        Control(
            without=("seccomp",),
            add=(NO_FILTER,),
            says="it joins its neighbour's processes, as the same user, unfiltered",
        ),
        OWN_NAMESPACE,
        refusals=ABSENT | DENIED | {"ESRCH", "ENOSYS"},
        judge=beside(NAMED, "HostConfig.PidMode", same_uid=True, values=CANARY),
    ),
)

_SHARED_MEMORY = (
    Attack(
        "opens another sandbox's System V memory",
        FAMILY,
        "a channel between calls",
        "step('open', call, 29, 0x70C1, 4096, 0o666)",
        IN_MEMORY,
        OWN_NAMESPACE,
        refusals=REFUSALS | ABSENT,
        judge=beside(_shared("call(29, 0x70C1, 4096, 0o1666)"), "HostConfig.IpcMode"),
    ),
    Attack(
        "opens another sandbox's semaphores",
        FAMILY,
        "a channel between calls",
        "step('open', call, 64, 0x70C2, 1, 0o666)",
        IN_MEMORY,
        OWN_NAMESPACE,
        refusals=REFUSALS | ABSENT,
        judge=beside(_shared("call(64, 0x70C2, 1, 0o1666)"), "HostConfig.IpcMode"),
    ),
    Attack(
        "opens another sandbox's System V queue",
        FAMILY,
        "a channel between calls",
        "step('open', call, 68, 0x70C3, 0o666)",
        IN_MEMORY,
        OWN_NAMESPACE,
        refusals=REFUSALS | ABSENT,
        judge=beside(_shared("call(68, 0x70C3, 0o1666)"), "HostConfig.IpcMode"),
    ),
    Attack(
        "opens another sandbox's POSIX queue",
        FAMILY,
        "a channel between calls",
        "step('open', call, 240, b'toolcrib', os.O_RDWR, 0, 0)",
        IN_MEMORY,
        OWN_NAMESPACE,
        refusals=REFUSALS | ABSENT,
        judge=beside(
            "os.umask(0)\n" + _shared("call(240, b'toolcrib', os.O_RDWR | os.O_CREAT, 0o666, 0)"),
            "HostConfig.IpcMode",
        ),
    ),
    Attack(
        "opens another sandbox's /dev/shm",
        FAMILY,
        "a channel between calls",
        "step('open', touch, '/dev/shm/canary', 'rb')",
        IN_MEMORY,
        OWN_NAMESPACE,
        refusals=ABSENT,
        judge=beside("os.umask(0)\n" + _shared("touch('/dev/shm/canary', 'w+b')"), "HostConfig.IpcMode"),
    ),
)


LISTENER = """
import socket, threading
door = socket.socket(socket.AF_UNIX)
door.bind("\\0" + canary)
door.listen()
def greet():
    visitor, _ = door.accept()
    visitor.sendall(b"hello")
threading.Thread(target=greet, daemon=True).start()
wait()
answer = "unharmed"
"""

# Gives away a connection of its own, here one that it made itself.
ACCOMPLICE = """
import socket, threading
door = socket.socket(socket.AF_UNIX)
door.bind("\\0" + canary)
door.listen()
def give():
    visitor, _ = door.accept()
    near, far = socket.socketpair()
    far.sendall(b"hello")
    socket.send_fds(visitor, [b"take it"], [near.fileno()])
threading.Thread(target=give, daemon=True).start()
wait()
answer = "unharmed"
"""

_SOCKETS = (
    Attack(
        "connects to another sandbox's abstract socket",
        FAMILY,
        "a channel between calls",
        KNOCK + "step('abstract', knock, '\\0' + canary)",
        Control(without=("no-network", "hostname"), says="it joins its neighbour's network"),
        OWN_NAMESPACE,
        refusals=frozenset({"ECONNREFUSED"}),
        judge=beside(LISTENER, "HostConfig.NetworkMode", values=CANARY),
    ),
    Attack(
        "gets another sandbox's way out by a passed descriptor",
        FAMILY,
        "another call's target, with an accomplice there",
        KNOCK
        + """
def fetch():
    with socket.socket(socket.AF_UNIX) as door:
        door.connect("\\0" + canary)
        data, descriptors, _, _ = socket.recv_fds(door, 16, 1)
        if not os.read(descriptors[0], 5):
            raise OSError(errno.EPIPE, "nothing came")
step("fetch", fetch)
""",
        Control(without=("no-network", "hostname"), says="it joins its neighbour's network"),
        OWN_NAMESPACE,
        refusals=frozenset({"ECONNREFUSED"}),
        judge=beside(ACCOMPLICE, "HostConfig.NetworkMode", values=CANARY),
    ),
    Attack(
        "guesses the path of another call's sockets",
        FAMILY,
        "another call's target",
        KNOCK
        + """
step("beside", knock, "/run/toolcrib/../other/orders-db/door.sock")
step("by-host-path", knock, nests + "/other/orders-db/door.sock")
step("through-init", knock, "/proc/1/root" + nests + "/other/orders-db/door.sock")
""",
        Control(add=(ALL_NESTS,), says="every call's folder is mounted"),
        OWN_FOLDER,
        refusals=ABSENT | DENIED,
        wins=("by-host-path",),
        host=two_nests,
        judge=in_own_nest,
    ),
    Attack(
        "follows links to another call's sockets",
        FAMILY,
        "another call's target",
        KNOCK
        + """
os.symlink(nests + "/other/orders-db", "/tmp/link")
step("link", knock, "/tmp/link/door.sock")
folder = os.open("/run/toolcrib", os.O_RDONLY | os.O_DIRECTORY)
step("above", os.open, "../" * 16 + nests[1:] + "/other", os.O_RDONLY, dir_fd=folder)
step("in-its-place", os.symlink, nests + "/other", "/run/toolcrib/link")
""",
        Control(add=(ALL_NESTS,), says="every call's folder is mounted"),
        OWN_FOLDER,
        refusals=ABSENT | DENIED | {"EROFS"},
        wins=("link", "above"),
        host=two_nests,
        judge=in_own_nest,
    ),
)

ATTACKS: tuple[Attack, ...] = (*_PROCESSES, *_SHARED_MEMORY, *_SOCKETS)
