"""Bombs of memory: what a sandbox takes beside what is counted, or more than its share."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.arena import ABSENT, REFUSALS, Attack, Control
from tests.attacks.judges import within_memory

FAMILY = "bombs"
FREE_MEMORY = Control(without=("memory", "no-swap"))
FILTER = {"": "the filter of system calls, and no place where such a thing could lie"}
LIMIT = {"": "the limit of memory, which counts this too"}
TOUCH_ALL = "for place in range(0, len(block), 4096):\n    block[place] = 1\nanswer = len(block)\n"

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "takes memory",
        FAMILY,
        "the host's memory",
        "block = bytearray(200 << 20)\n" + TOUCH_ALL,
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(200),
    ),
    Attack(
        "takes shared memory of its own",
        FAMILY,
        "memory that is counted elsewhere",
        "import mmap\nblock = mmap.mmap(-1, 200 << 20)\n" + TOUCH_ALL,
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(200),
    ),
    Attack(
        "takes memory by files in /tmp",
        FAMILY,
        "memory that is counted elsewhere",
        """
answer = 0
with open("/tmp/block", "wb") as file:
    for _ in range(200):
        answer += file.write(bytes(1 << 20))
""",
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(200),
        limits={"tmp_mib": 256},
    ),
    Attack(
        "takes swap",
        FAMILY,
        "the host's disk, and its secrets on it",
        "block = bytearray(200 << 20)\n" + TOUCH_ALL,
        Control(without=("no-swap",)),
        {"": "no swap"},
        judge=within_memory(200),
        probe=lambda: None if Path("/proc/swaps").read_text().count("\n") > 1 else "the host has no swap",
    ),
    Attack(
        "takes the kernel's memory by pipes",
        FAMILY,
        "memory that is counted elsewhere",
        """
import fcntl
answer, pipes = 0, []
try:
    while len(pipes) < 110:
        near, far = os.pipe()
        pipes.append((near, far))
        os.set_blocking(far, False)
        try:
            fcntl.fcntl(far, 1031, 1 << 20)
        except OSError:
            pass
        try:
            while True:
                answer += os.write(far, bytes(65536))
        except BlockingIOError:
            pass
except OSError:
    pass
""",
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(60),
        limits={"memory_mib": 56},
    ),
    Attack(
        "takes the kernel's memory by sockets",
        FAMILY,
        "memory that is counted elsewhere",
        """
import socket
answer, pairs = 0, []
try:
    while len(pairs) < 110:
        pair = socket.socketpair()
        pairs.append(pair)
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            end.setblocking(False)
            try:
                while True:
                    answer += end.send(bytes(32768))
            except BlockingIOError:
                pass
except OSError:
    pass
""",
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(40),
        limits={"memory_mib": 56},
    ),
    Attack(
        "takes the kernel's memory by timers",
        FAMILY,
        "memory that is counted elsewhere",
        """
timer = ctypes.c_int()
count = 0
try:
    while count < 90_000:
        call(222, 1, 0, ctypes.byref(timer))
        count += 1
except OSError:
    pass
answer = count * 280
""",
        FREE_MEMORY,
        LIMIT,
        judge=within_memory(24),
        limits={"memory_mib": 40},
    ),
    Attack(
        "pins memory",
        FAMILY,
        "memory that the host cannot move",
        """
import mmap
block = mmap.mmap(-1, 1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(block))
step("some", call, 149, address, 1 << 20)
step("all", call, 151, 1)
""",
        Control(without=("seccomp", "no-locked-memory")),
        FILTER,
        refusals=REFUSALS | {"ENOMEM"},
        wins=("some",),
    ),
    Attack(
        "makes shared memory objects",
        FAMILY,
        "memory that outlives its process",
        """
step("system v", call, 29, 0, 1 << 20, 0o1600)
step("no name", call, 319, b"memory", 0)
step("posix", touch, "/dev/shm/block", "w+b")
""",
        Control(without=("seccomp", "no-shared-memory")),
        FILTER,
        refusals=REFUSALS | ABSENT | {"EROFS"},
    ),
    Attack(
        "makes message queues",
        FAMILY,
        "kernel memory beside the limit",
        """
step("posix", call, 240, b"queue", os.O_RDWR | os.O_CREAT, 0o600, 0)
step("system v", call, 68, 0, 0o1600)
""",
        Control(without=("seccomp", "no-shared-memory", "no-queues")),
        FILTER,
        refusals=REFUSALS,
    ),
)
