"""Attacks that look for a way out of the sandbox's file system and namespaces."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.attacks.arena import ABSENT, REFUSALS, Attack, Control, Ground
from tests.attacks.weakened import (
    HOST_PIDS,
    PRIVILEGED,
    root_with,
)
from tests.parts.engine import Obedient

NOT_THERE = REFUSALS | ABSENT
READ_ONLY = NOT_THERE | {"EROFS"}
EMPTY = frozenset({"ENODATA"})

# Steps that read: an empty file stands for one that is covered.
_READ = """
def read(path, size=16):
    with open(path, "rb", buffering=0) as file:
        if not file.read(size):
            raise OSError(errno.ENODATA, "empty")
def find(path):
    with open(path) as file:
        if nonce not in file.read():
            raise OSError(errno.ENOENT, "another file")
"""

HOST_FOLDER = f"{tempfile.gettempdir()}/toolcrib-attack-{os.getpid()}"
"""Where `put_secret` puts it; controls mount it at the same path."""


@asynccontextmanager
async def put_secret(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """Put a file on the host that the tool would like to read."""
    nonce = secrets.token_hex(8)
    folder = Path(HOST_FOLDER)
    folder.mkdir(mode=0o755)
    try:
        (folder / "secret").write_text(nonce)
        yield {"folder": str(folder), "path": str(folder / "secret"), "nonce": nonce, "other": os.getpid()}
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def put_target(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Give the sandbox a socket folder in which everybody could write, if the mount let them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / "orders-db").touch()
        (Path(folder) / "orders-db").chmod(0o666)
        yield {"folder": folder} if ground.is_control else {"folder": folder, "socket_dir": folder}


@asynccontextmanager
async def know_engine(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Tell the tool where the engine's socket is on the host."""
    tool = ground.obedient
    yield {"engine": str(tool.engine.socket_path) if isinstance(tool, Obedient) else "/run/docker.sock"}


HOST_ROOT = replace(PRIVILEGED, add=(*PRIVILEGED.add, HOST_PIDS), says="privileged, the host's processes")

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "asks the engine",
        "escapes",
        "a privileged container, by a socket of the engine",
        """
import socket
def ask(path):
    with socket.socket(socket.AF_UNIX) as engine_socket:
        engine_socket.settimeout(2)
        engine_socket.connect(path)
        engine_socket.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
        if b"200 OK" not in engine_socket.recv(64):
            raise OSError(errno.ENOENT, "not an engine")
known = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
         "/run/podman/podman.sock", "/run/user/0/docker.sock", engine)
for path in known:
    step(path, ask, path)
for folder, _, names in os.walk("/"):
    for name in names if not folder.startswith("/proc") else ():
        if (os.lstat(os.path.join(folder, name)).st_mode & 0o170000) == 0o140000:
            step("found", ask, os.path.join(folder, name))
""",
        replace(root_with(), binds={"/run/docker.sock": "engine"}, says="root, the engine's socket mounted"),
        {"": "nothing of the host is mounted but the socket folder"},
        refusals=NOT_THERE,
        wins=("/run/docker.sock",),
        host=know_engine,
    ),
    Attack(
        "reads a file of the host by its path",
        "escapes",
        "what lies on the host's disk",
        _READ
        + """
def at(number, name):
    os.close(os.open(name, os.O_RDONLY, dir_fd=number))
step("path", find, path)
for number in range(64):
    try: os.fstat(number)
    except OSError: continue
    for upwards in ("", "../" * 12):
        step(f"from {number} {upwards[:2]}", at, number, upwards + path[1:])
step("upwards", find, "../" * 12 + path[1:])
mounts = ["- - - - /"]
if os.path.exists("/proc/self/mountinfo"):
    mounts = open("/proc/self/mountinfo").readlines()
for place in {line.split()[4] for line in mounts}:
    step("below " + place, find, place + path)
""",
        Control(binds={f"{HOST_FOLDER}": "folder"}, says="the folder mounted at its own path"),
        {"": "own root, own mounts; descriptors closed before the handler"},
        refusals=NOT_THERE | {"EBADF", "EISDIR"},
        wins=("path", "upwards", "below /"),
        host=put_secret,
    ),
    Attack(
        "reads a file of the host through another process",
        "escapes",
        "another root directory, by links in /proc",
        _READ
        + """
def by_folder(opened):
    with open(os.open(path[1:], os.O_RDONLY, dir_fd=opened)) as file:
        if nonce not in file.read():
            raise OSError(errno.ENOENT, "another file")
def by_fchdir(opened):
    os.fchdir(opened)
    find(path[1:])
def by_openat2(name):
    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    with open(call(437, -100, name.encode(), how, 24)) as file:
        if nonce not in file.read():
            raise OSError(errno.ENOENT, "another file")
def by_hardlink(name):
    os.link(name, "/tmp/hard", follow_symlinks=True)
    find("/tmp/hard")
def through(link, name):
    os.symlink(name, link)
    find(link + path)
for who, pid in (("init", 1), ("host", other)):
    folder = f"/proc/{pid}/root"
    step(who, find, folder + path)
    step(who + " by cwd", find, f"/proc/{pid}/cwd/../../../../../../../.." + path)
    step(who + " by symlink", through, "/tmp/soft-" + who, folder)
    step(who + " by O_PATH", lambda: by_folder(os.open(folder, os.O_PATH)))
    step(who + " by fchdir", in_child, lambda: by_fchdir(os.open(folder, os.O_PATH)))
    step(who + " by openat2", by_openat2, folder + path)
    step(who + " by hardlink", by_hardlink, folder + path)
    step(who + " by chroot", in_child, lambda: (os.chroot(folder), find(path)))
""",
        HOST_ROOT,
        {
            "": "own processes only; init cannot be looked into",
            "docker-runc": "own processes; no-capabilities",
        },
        refusals=NOT_THERE,
        wins=(
            "host",
            "host by cwd",
            "host by symlink",
            "host by O_PATH",
            "host by openat2",
            "host by chroot",
        ),
        host=put_secret,
    ),
    Attack(
        "overwrites a program that the host starts",
        "escapes",
        "code on the host, by /proc/self/exe (CVE-2019-5736)",
        """
def by_descriptor(path):
    held = os.open(path, os.O_PATH)
    os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
for path in ("/proc/self/exe", "/proc/1/exe", "/usr/bin/python3", "/proc/self/map_files"):
    step(path, lambda: os.close(os.open(path, os.O_WRONLY)), reached=["ETXTBSY"])
    step(path + " by O_PATH", by_descriptor, path, reached=["ETXTBSY"])
""",
        Control(("identity", "read-only-root")),
        {"": "identity, read-only-root"},
        refusals=READ_ONLY | {"EISDIR"},
        wins=("/proc/self/exe", "/usr/bin/python3", "/usr/bin/python3 by O_PATH"),
    ),
    Attack(
        "makes a device",
        "escapes",
        "the host's disk, as a device file of its own",
        """
import stat
numbers = []
if os.path.exists("/proc/partitions"):
    disks = [line.split() for line in open("/proc/partitions").read().splitlines()[2:]]
    numbers += [(int(line[0]), int(line[1])) for line in disks if line[0] not in ("1", "7")]
def make(name, kind, number):
    os.mknod("/tmp/" + name, kind | 0o600, os.makedev(*number))
    os.close(os.open("/tmp/" + name, os.O_RDONLY))
step("disk", make, "disk", stat.S_IFBLK, (*numbers, (8, 0))[0])
step("fuse", make, "fuse", stat.S_IFCHR, (10, 229))
step("mem", make, "mem", stat.S_IFCHR, (1, 1))
""",
        PRIVILEGED,
        {"": "no capabilities; filter; /tmp without devices"},
        refusals=NOT_THERE,
        wins=("fuse",),
    ),
    Attack(
        "opens devices of the host",
        "escapes",
        "memory, disk, log, virtual machines, file systems of its own",
        """
for name in ("mem", "kmem", "port", "kmsg", "fuse", "kvm", "loop0", "loop-control", "vda", "sda", "nvme0n1",
             "tty0", "console", "vsock", "vhost-vsock", "vhost-net", "net/tun", "mapper/control",
             "userfaultfd", "uinput", "snapshot", "zram0", "hwrng", "autofs", "cpu_dma_latency", "dri/card0",
             "input/event0", "watchdog"):
    step(name, lambda: os.close(os.open("/dev/" + name, os.O_RDONLY | os.O_NONBLOCK)))
""",
        PRIVILEGED,
        {
            "": "a /dev of its own with the harmless devices only",
            "docker-runsc": "gVisor's own /dev: its fuse and tun are none of the host's",
        },
        harmless={"docker-runsc": frozenset({"fuse", "net/tun"})},
        refusals=NOT_THERE,
        wins=("fuse", "kmsg", "loop-control"),
    ),
    Attack(
        "changes settings of the kernel",
        "escapes",
        "a program that the kernel starts as root (core_pattern), the host's behaviour",
        """
for name in ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/poweroff_cmd",
             "sys/kernel/hostname", "sys/kernel/panic", "sys/vm/overcommit_memory", "sys/vm/drop_caches",
             "sys/fs/suid_dumpable",
             "sys/net/ipv4/ip_forward", "sys/kernel/randomize_va_space", "sys/fs/binfmt_misc/register",
             "sysrq-trigger", "irq/default_smp_affinity", "scsi/scsi", "acpi/wakeup", "bus/pci/00/00.0",
             "mtrr"):
    step(name, touch, "/proc/" + name)
for name in ("kernel/uevent_helper", "kernel/mm/transparent_hugepage/enabled", "power/state",
             "kernel/profiling", "module/printk/parameters/time", "fs/bpf/x",
             "kernel/debug/x", "devices/system/cpu/cpu1/online"):
    step(name, touch, "/sys/" + name)
""",
        PRIVILEGED,
        {
            "": "identity; read-only /proc/sys and /sys",
            "docker-runsc": "no /proc; gVisor's own /sys",
            "bubblewrap": "identity; no /sys",
        },
        refusals=READ_ONLY,
        wins=("sys/kernel/core_pattern", "sys/kernel/panic", "kernel/mm/transparent_hugepage/enabled"),
    ),
    Attack(
        "reads what the kernel tells about the host",
        "escapes",
        "addresses, memory, timers, keys and firmware of the host",
        _READ
        + """
def read_address():
    with open("/proc/kallsyms") as file:
        address = file.readline().split()[:1]
    if not address or not int(address[0], 16):
        raise OSError(errno.ENODATA, "empty, or without addresses")
step("/proc/kallsyms", read_address)
for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug",
             "/proc/interrupts", "/proc/vmallocinfo", "/proc/slabinfo", "/proc/acpi/wakeup",
             "/proc/kpagecount", "/proc/pagetypeinfo", "/sys/kernel/notes", "/sys/firmware/acpi/tables/DSDT",
             "/sys/kernel/debug/x", "/sys/kernel/vmcoreinfo", "/sys/kernel/security/lsm"):
    step(path, lambda: read(path))
""",
        PRIVILEGED,
        {
            "": "covered by the engine; identity",
            "docker-runsc": "no /proc; gVisor's own /sys",
            "bubblewrap": "identity; no /sys",
        },
        refusals=NOT_THERE | EMPTY,
        wins=("/proc/kallsyms", "/proc/slabinfo", "/proc/timer_list"),
    ),
    Attack(
        "has the host start a program by release_agent",
        "escapes",
        "code on the host, by a cgroup's release_agent (CVE-2022-0492)",
        """
def mount_group(kind, options, folder):
    os.makedirs(folder, exist_ok=True)
    call(165, b"cgroup", folder.encode(), kind, 0, options)
    touch(folder + ("/release_agent" if kind == b"cgroup" else "/cgroup.procs"))
for name in os.listdir("/sys/fs/cgroup") if os.path.isdir("/sys/fs/cgroup") else ():
    step(name, touch, f"/sys/fs/cgroup/{name}/release_agent")
step("mount", mount_group, b"cgroup", b"memory", "/tmp/group")
step("mount of the second kind", mount_group, b"cgroup2", 0, "/tmp/group2")
""",
        PRIVILEGED,
        {"": "no capabilities; read-only cgroups; filter", "bubblewrap": "no cgroups in sight; filter"},
        refusals=READ_ONLY,
        wins=("memory", "mount of the second kind"),
    ),
    Attack(
        "raises its own limits",
        "escapes",
        "more memory and processes, by the files of its cgroup",
        """
for name in ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "devices/devices.allow",
             "memory/cgroup.procs", "pids/cgroup.procs", "memory/memory.oom_control", "freezer/freezer.state",
             "memory.max", "pids.max", "cgroup.procs"):
    step(name, touch, "/sys/fs/cgroup/" + name, "wb")
""",
        PRIVILEGED,
        {"": "identity; read-only cgroups", "bubblewrap": "no cgroups in sight"},
        refusals=READ_ONLY,
        wins=("memory/memory.limit_in_bytes", "memory/cgroup.procs"),
    ),
    Attack(
        "opens files by their handle",
        "escapes",
        "any file of the host's disk, by its number (shocker)",
        """
def root_of_host(number):
    mount = os.open(place, os.O_RDONLY)
    handle = ctypes.create_string_buffer(struct.pack("IiII", 8, 1, number, 0) + bytes(128))
    os.close(call(304, mount, handle, os.O_RDONLY))
place = "/etc/hostname" if os.path.exists("/etc/hostname") else "/tmp"
step("inode 2", root_of_host, 2)
step("name", call, 303, -100, b"/tmp", ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)),
     ctypes.byref(ctypes.c_int(0)), 0)
""",
        root_with("DAC_READ_SEARCH"),
        {"": "no capabilities; filter"},
        wins=("inode 2",),
    ),
    Attack(
        "puts a socket in the place of its target",
        "escapes",
        "a socket of its own in the place of its target, files on the host",
        """
folder = "/run/toolcrib/"
step("create", touch, folder + "new", "wb")
step("symlink", os.symlink, "/etc/passwd", folder + "link")
step("rename", os.rename, folder + "orders-db", folder + "other")
step("mode", os.chmod, folder, 0o755)
step("remove", lambda: [os.unlink(folder + name) for name in sorted(os.listdir(folder))[:1] or ["x"]])
""",
        Control(binds={"/run/toolcrib": "folder"}, says="the folder mounted writable"),
        {"": "a mount that is read-only"},
        refusals=frozenset({"EROFS", "EPERM", "EACCES"}),
        wins=("create", "symlink", "rename", "remove"),
        host=put_target,
    ),
    Attack(
        "changes the image",
        "escapes",
        "its code in the next call's handler, SDK or interpreter",
        """
for path in ("/opt/bundle/handler.py", "/opt/toolcrib/init.pyc", "/usr/bin/new", "/etc/passwd",
             "/usr/lib/new", "/opt/toolcrib/lib/new.pth", "/run/new", "/etc/ld.so.preload"):
    step(path, touch, path, "ab")
""",
        Control(("identity", "read-only-root")),
        {"": "identity, read-only root"},
        refusals=READ_ONLY,
    ),
    Attack(
        "runs a program that it wrote",
        "escapes",
        "a program that nobody reviewed",
        """
import shutil, subprocess
for folder in ("/tmp", "/dev/shm", "/run", "/dev/mqueue", "/var/tmp", "/dev"):
    def run():
        shutil.copy("/usr/bin/python3", folder + "/program")
        subprocess.run([folder + "/program", "-c", "pass"], check=True)
    step(folder, run)
""",
        Control(("tmp", "read-only-root"), limits={"tmp_mib": 32}),
        {"": "/tmp without execution, read-only root"},
        refusals=READ_ONLY | {"EMFILE"},
        wins=("/tmp",),
        limits={"tmp_mib": 32},
    ),
)
