"""Attacks on the kernel: calls that widen its surface, with a long list of past holes behind each."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.attacks.arena import ABSENT, REFUSALS, Attack, Control, Ground
from tests.attacks.probes import missing
from tests.attacks.weakened import NEW_PRIVILEGES, NO_FILTER, UNFILTERED, root_with

FILTER = {"": "filter"}

UNPINNED = Control(("seccomp", "no-locked-memory"), (NO_FILTER,))

_VICTIM = """
victim = os.fork()
if victim == 0:
    time.sleep(30)
"""
_CHILD_GOES = "\nos.kill(victim, 9)\nos.waitpid(victim, 0)\n"
_VECTORS = """
buffer = ctypes.create_string_buffer(8)
vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
"""


# An ELF that exits with 0 where its effective user is root, with 1 elsewhere.
_AM_I_ROOT = bytes.fromhex("b86b0000000f0585c00f95c00fb6f8b83c0000000f05")
_ELF = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
_ELF += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 0x200, 0x200, 0x1000)


@asynccontextmanager
async def put_setuid_program(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Put a program that gets root's rights into the one folder that a sandbox shares with the host."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "setuid"
        program.write_bytes(_ELF + _AM_I_ROOT)
        Path(folder).chmod(0o755)
        program.chmod(0o4755)
        yield {"socket_dir": folder}


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "opens io_uring",
        "kernel",
        "a second way to make system calls, which no filter sees",
        "step('setup', call, 425, 1, ctypes.create_string_buffer(120))",
        UNPINNED,
        FILTER,
    ),
    Attack(
        "opens io_uring below a filter of its own",
        "kernel",
        "a filter that allows all, laid over ours to weaken it",
        """
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
allow = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
program = Program(1, ctypes.addressof(allow))
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, ctypes.byref(program), 0, 0)
step("setup", call, 425, 1, ctypes.create_string_buffer(120))
""",
        UNPINNED,
        FILTER,
    ),
    Attack(
        "uses the old asynchronous input",
        "kernel",
        "kernel memory beside its limit, and old code",
        "step('io_setup', call, 206, 1, ctypes.byref(ctypes.c_ulong(0)))",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "loads a bpf program",
        "kernel",
        "code of its own in the kernel",
        "step('map', call, 321, 0, struct.pack('IIIII', 2, 4, 4, 1, 0) + bytes(100), 120)",
        root_with("SYS_ADMIN"),
        FILTER,
    ),
    Attack(
        "counts events of the processor",
        "kernel",
        "what others compute, by perf_event_open",
        "step('open', call, 298, struct.pack('IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0)",
        root_with("SYS_ADMIN"),
        FILTER,
    ),
    Attack(
        "stops the kernel at a page fault",
        "kernel",
        "time to win races in the kernel, by userfaultfd",
        "step('open', call, 323, 1)",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "keeps keys in the kernel",
        "kernel",
        "a store that outlives it, shared between sandboxes",
        """
step("add_key", call, 248, b"user", b"name", b"value", 5, -1)
step("keyctl", call, 250, 0, -1, 1)
step("request_key", call, 249, b"user", b"name", 0, 0)
""",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "traces a process",
        "kernel",
        "another process's memory and calls, or its own filter suspended",
        _VICTIM
        + """
step("attach", in_child, call, 101, 16, victim, 0, 0)
step("seize", in_child, call, 101, 0x4206, victim, 0, 0)
step("traceme", in_child, call, 101, 0, 0, 0, 0)
"""
        + _CHILD_GOES,
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "reads and writes another process's memory",
        "kernel",
        "another process's secrets, by process_vm_*",
        _VECTORS
        + _VICTIM
        + """
step("read", call, 310, victim, vector, 1, vector, 1, 0)
step("write", call, 311, victim, vector, 1, vector, 1, 0)
"""
        + _CHILD_GOES,
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "compares kernel objects of processes",
        "kernel",
        "addresses in the kernel, by kcmp",
        "step('compare', call, 312, os.getpid(), os.getpid(), 1, 0, 0)",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "takes another process's descriptor",
        "kernel",
        "an open file that it was never given, by pidfd_getfd",
        _VICTIM
        + """
def take():
    held = os.pidfd_open(victim)
    call(438, held, 1, 0)
step("take", take)
"""
        + _CHILD_GOES,
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "runs a program from memory",
        "kernel",
        "a program of its own, past the mounts that forbid it",
        """
def run():
    place = call(319, b"program", 0)
    with open("/usr/bin/python3", "rb") as file:
        os.write(place, file.read())
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    call(322, place, b"", (ctypes.c_char_p * 4)(b"x", b"-c", b"import os; os._exit(0)"), None, 0x1000)
step("memfd", call, 319, b"program", 0)
step("execveat", in_child, run)
""",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "puts code into the kernel",
        "kernel",
        "a module, or another kernel",
        """
step("init_module", call, 175, b"x", 1, b"", reached=["ENOEXEC"])
step("finit_module", call, 313, 0, b"", 0, reached=["ENOEXEC", "EINVAL", "EBADF"])
step("kexec_load", call, 246, 0, 0, 0, 0xFFFF, reached=["EINVAL"])
""",
        root_with("SYS_MODULE", "SYS_BOOT"),
        FILTER,
        probe=lambda: missing(175, 246),
    ),
    Attack(
        "restarts the machine",
        "kernel",
        "the host's end",
        "step('reboot', call, 169, 0, 0, 0, 0, reached=['EINVAL'])  # magic numbers that no kernel takes",
        root_with("SYS_BOOT"),
        FILTER,
    ),
    Attack(
        "turns swap, accounting or quotas on",
        "kernel",
        "the host's memory on disk, a log of every process, the disk's limits",
        """
step("swapon", call, 167, b"/none", 0, reached=["ENOENT"])
step("swapoff", call, 168, b"/none", reached=["ENOENT"])
step("acct", call, 163, b"/none", reached=["ENOENT"])
step("quotactl", call, 179, 0x80000100, 0, 0, 0)
""",
        root_with("SYS_ADMIN", "SYS_PACCT"),
        FILTER,
    ),
    Attack(
        "moves the clock",
        "kernel",
        "deadlines and certificates at another time",
        """
step("settimeofday", call, 164, 0, struct.pack("ii", 0, 0))
tick = ctypes.create_string_buffer(struct.pack("I", 0x4000) + bytes(204))  # a length that no kernel takes
step("adjtimex", call, 159, tick, reached=["EINVAL"])
""",
        root_with("SYS_TIME"),
        FILTER,
    ),
    Attack(
        "renames the host",
        "kernel",
        "another name in logs and certificates",
        """
step("sethostname", call, 170, b"sandbox", 7)
step("setdomainname", call, 171, b"(none)", 6)
""",
        root_with("SYS_ADMIN"),
        FILTER,
    ),
    Attack(
        "reads the kernel's log",
        "kernel",
        "addresses in the kernel, what others did",
        "step('syslog', call, 103, 3, ctypes.create_string_buffer(64), 64)",
        root_with("SYSLOG"),
        FILTER,
    ),
    Attack(
        "asks for ports of the processor",
        "kernel",
        "devices by their ports",
        "step('iopl', call, 172, 3)\nstep('ioperm', call, 173, 0x80, 1, 1)",
        root_with("SYS_RAWIO"),
        FILTER,
        probe=lambda: missing(172, 173),
    ),
    Attack(
        "turns off the shuffle of addresses",
        "kernel",
        "known addresses and executable data in the next program",
        """
step("no shuffle", in_child, call, 135, 0x0040000)
step("readable is executable", in_child, call, 135, 0x0400000)
""",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "gains rights by a setuid program",
        "kernel",
        "root, by a program that belongs to root",
        """
import subprocess
def gain():
    if subprocess.run(["/run/toolcrib/setuid"], stdout=subprocess.DEVNULL).returncode:
        raise OSError(errno.EPERM, "it ran as somebody else")
step("run", gain)
""",
        Control(("no-new-privileges", "seccomp"), (NEW_PRIVILEGES, NO_FILTER)),
        {"": "no-new-privileges", "bubblewrap": "mounts without setuid; no-new-privileges"},
        host=put_setuid_program,
    ),
    Attack(
        "pushes input into a terminal",
        "kernel",
        "commands typed for whoever watches (TIOCSTI), old terminal code",
        """
import fcntl
def push(number, argument):
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))
    slave = os.open(f"/dev/pts/{struct.unpack('I', fcntl.ioctl(master, 0x80045430, bytes(4)))[0]}", os.O_RDWR)
    fcntl.ioctl(slave, number, argument)
def push_as_leader():
    os.setsid()
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))
    slave = os.open(f"/dev/pts/{struct.unpack('I', fcntl.ioctl(master, 0x80045430, bytes(4)))[0]}", os.O_RDWR)
    fcntl.ioctl(slave, 0x5412, b"x")
step("type", in_child, push_as_leader)
step("line discipline", in_child, push, 0x5423, struct.pack("i", 0))
""",
        UNFILTERED,
        FILTER,
        refusals=REFUSALS | ABSENT,
    ),
    Attack(
        "watches files by fanotify",
        "kernel",
        "what others open, across mounts",
        "step('init', call, 300, 0x200, 0)",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "moves pages between nodes",
        "kernel",
        "the place of memory, and old holes there",
        """
area = ctypes.create_string_buffer(8192)
page = (ctypes.addressof(area) + 4095) & ~4095
step("mbind", call, 237, page, 4096, 0, 0, 0, 0)
step("move_pages", call, 279, 0, 0, 0, 0, 0, 0)
step("migrate_pages", call, 256, 0, 64, struct.pack("Q", 1), struct.pack("Q", 1))
step("set_mempolicy", call, 238, 0, 0, 0)
""",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "moves pages between pipes and files",
        "kernel",
        "write access to what it may only read (Dirty Pipe)",
        """
out, into = os.pipe()
second_out, second_into = os.pipe()
os.write(into, b"x" * 8)
place = os.open("/usr/bin/python3", os.O_RDONLY)
step("splice", call, 275, place, 0, into, 0, 1, 0)
step("tee", call, 276, out, second_into, 1, 0)
page = ctypes.create_string_buffer(8)
step("vmsplice", call, 278, into, struct.pack("QQ", ctypes.addressof(page), 8), 1, 0)
""",
        UNFILTERED,
        FILTER,
    ),
    Attack(
        "keeps memory in System V objects",
        "kernel",
        "memory that no process owns, a channel between sandboxes",
        """
step("shared memory", call, 29, 0, 4096, 0o1600)
step("semaphores", call, 64, 0, 1, 0o1600)
step("messages", call, 68, 0, 0o1600)
step("queue", call, 240, b"queue", 0o102, 0o600, 0)
""",
        UNFILTERED,
        FILTER,
        wins=("shared memory", "semaphores", "messages"),
    ),
    Attack(
        "changes its segments",
        "kernel",
        "16-bit code and old holes, by modify_ldt",
        "step('write', call, 154, 1, struct.pack('IIII', 0, 0, 0, 0), 16)",
        UNFILTERED,
        FILTER,
    ),
)
