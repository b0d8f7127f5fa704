"""Attacks by mounts and namespaces: another view of the system, and powers in it."""

from __future__ import annotations

from dataclasses import replace

from tests.attacks.arena import REFUSALS, Attack, Control
from tests.attacks.families.escapes import HOST_ROOT, NOT_THERE, put_secret
from tests.attacks.weakened import NO_FILTER, root_with

MOUNTING = root_with("SYS_ADMIN", "SYS_CHROOT")

_CLONE = """
def clone(flags):
    child = call(56, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
def clone3(flags):
    child = call(435, ctypes.create_string_buffer(struct.pack("QQQQQQQQ", flags, 0, 0, 0, 17, 0, 0, 0)), 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""
NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "mounts",
        "namespaces",
        "covers and host disks, a root that it can write",
        """
os.makedirs("/tmp/a/b", exist_ok=True)
for name, arguments in {
    "tmpfs": (b"none", b"/tmp/a", b"tmpfs", 0, 0), "bind": (b"/etc", b"/tmp/a", 0, 4096, 0),
    "writable root": (0, b"/", 0, 32 | 4096, 0), "proc": (b"proc", b"/tmp/a", b"proc", 0, 0),
    "shared": (0, b"/", 0, 1 << 20 | 16384, 0),
    "overlay": (b"none", b"/tmp/a", b"overlay", 0, b"lowerdir=/etc:/usr"),
}.items():
    step(name, call, 165, *arguments)
step("umount", call, 166, b"/etc/hostname", 2, reached=["EINVAL"])
step("pivot_root", call, 155, b"/tmp/a", b"/tmp/a/b", reached=["EINVAL", "ENOENT"])
""",
        replace(MOUNTING, without=(*MOUNTING.without, "tmp", "read-only-root")),
        {"": "no capabilities; filter"},
        wins=("tmpfs", "bind", "proc", "umount"),
    ),
    Attack(
        "mounts by the newer calls",
        "namespaces",
        "the same, where a filter knows the old calls only",
        """
def new():
    opened = call(430, b"tmpfs", 0)
    call(431, opened, 6, 0, 0, 0)
    call(429, call(432, opened, 0, 0), b"", -100, b"/tmp", 4)
def moved():
    call(429, call(428, -100, b"/etc", 1), b"", -100, b"/tmp", 4)
step("fsopen", in_child, new)
step("open_tree", in_child, moved)
step("fspick", call, 433, -100, b"/", 0)
step("mount_setattr", call, 442, -100, b"/tmp", 0, struct.pack("QQQQ", 0, 0, 0, 0), 32)
""",
        MOUNTING,
        {"": "no capabilities; filter"},
    ),
    Attack(
        "leaves its root",
        "namespaces",
        "the way up from a second root",
        """
def leave():
    os.makedirs("/tmp/root", exist_ok=True)
    outside = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/root")
    os.fchdir(outside)
    for _ in range(8):
        os.chdir("..")
    os.chroot(".")
    os.close(os.open("/proc/self/status", os.O_RDONLY))
step("chroot", in_child, leave)
""",
        root_with("SYS_CHROOT"),
        {"": "no capabilities; filter"},
    ),
    *(
        Attack(
            f"makes namespaces by {way}",
            "namespaces",
            "powers inside a namespace of its own, and the holes behind them",
            _CLONE + "\n".join(f"step({name!r}, {how}, {flag})" for name, flag in flags.items()),
            MOUNTING,
            {"": "no capabilities; filter"},
            refusals=REFUSALS | {"EINVAL"} if way != "unshare" else REFUSALS,
        )
        for way, how, flags in (
            ("unshare", "in_child, call, 272", NAMESPACES),
            ("clone", "clone", {name: flag for name, flag in NAMESPACES.items() if name != "time"}),
            ("clone3", "clone3", NAMESPACES),
        )
    ),
    Attack(
        "makes a user namespace with all powers",
        "namespaces",
        "root in a namespace of its own, with no right needed",
        """
def become():
    mine = os.getuid()
    call(272, 0x10000000 | 0x20000 | 0x40000000)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {mine} 1")
    call(165, b"none", b"/tmp", b"tmpfs", 0, 0)
step("become", in_child, become)
""",
        Control(("seccomp",), (NO_FILTER,)),
        {"": "filter"},
    ),
    Attack(
        "enters the namespaces of another process",
        "namespaces",
        "the host's namespaces, by setns",
        """
def enter(pid, name):
    opened = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
    call(308, opened, 0)
for name in ("mnt", "net", "uts", "ipc", "pid", "cgroup"):
    step(name + " of init", in_child, enter, 1, name)
    step(name + " of the host", in_child, enter, other, name)
    step(name, in_child, enter, "self", name)
step("all of init", in_child, lambda: call(308, os.pidfd_open(1), 0x20000 | 0x40000000))
step("all of the host", in_child, lambda: call(308, os.pidfd_open(other), 0x20000 | 0x40000000))
""",
        HOST_ROOT,
        {"": "own processes; init cannot be looked into; filter"},
        refusals=NOT_THERE,
        wins=("net of the host", "uts of the host", "net", "uts", "all of the host"),
        host=put_secret,
    ),
    Attack(
        "learns its place among the host's cgroups",
        "namespaces",
        "its container's name and the host's tree",
        """
import re
def learn():
    if not re.search("docker.[0-9a-f]{64}|toolcrib", open("/proc/self/cgroup").read()):
        raise OSError(errno.ENOENT, "only its own root")
step("cgroup", learn)
""",
        Control(("own-cgroup-view",)),
        {"": "a cgroup namespace of its own", "docker-runsc": "no /proc"},
        refusals=NOT_THERE,
    ),
)
