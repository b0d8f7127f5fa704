"""Attacks on the kernel's sockets: families that no network namespace confines, calls that filters forget."""

from __future__ import annotations

from tests.attacks.arena import REFUSALS, Attack
from tests.attacks.probes import missing
from tests.attacks.weakened import UNFILTERED, root_with

FILTER = {"": "filter"}
FILTER_AND_SENTRY = {"": "filter", "docker-runsc": "filter; gVisor has no such call"}

# A system call of the 32-bit table: eax, ebx, ecx. The stack of a C caller is kept.
_BY_INT_80 = """
import mmap
def call_32(number, first, second):
    code = bytes.fromhex("53b8%08xbb%08xb9%08x31d231f631ffcd805bc3" % tuple(
        int.from_bytes(each.to_bytes(4, "little"), "big") for each in (number, first, second)
    ))
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
"""
KILLED = frozenset({"killed by SIGSYS", "killed by SIGSEGV", "killed by SIGILL"})

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "talks to the hypervisor by vsock",
        "sockets",
        "a way out that no network namespace confines",
        """
import socket
step("stream", socket.socket, 40, socket.SOCK_STREAM)
step("datagram", socket.socket, 40, socket.SOCK_DGRAM)
""",
        UNFILTERED,
        FILTER_AND_SENTRY,
        wins=("stream",),
    ),
    Attack(
        "makes pairs of rare sockets",
        "sockets",
        "code of families that `socket` refuses, by socketpair",
        """
for name, family in (("vsock", 40), ("netlink", 16), ("packet", 17), ("inet", 2)):
    pair, kind = ctypes.create_string_buffer(8), 3 if family == 17 else 2
    step(name, call, 53, family, kind, 0, pair, reached=["ENOTSUP", "ENODEV"])
""",
        UNFILTERED,
        FILTER,
        wins=("vsock", "netlink", "inet"),
        refusals=REFUSALS - {"ENOTSUP", "ENODEV"},
    ),
    Attack(
        "talks to the hypervisor by vsock, through 32-bit calls",
        "sockets",
        "the same by int 0x80, where a filter may know 64 bits only",
        _BY_INT_80 + "step('socket', in_child, call_32, 359, 40, 1)",
        UNFILTERED,
        {"": "filter, which ends other architectures", "docker-runsc": "gVisor has no 32-bit calls"},
        refusals=REFUSALS | KILLED,
    ),
    Attack(
        "opens sockets by socketcall",
        "sockets",
        "any family of sockets by the 32-bit multiplexer",
        _BY_INT_80
        + """
import stat
low = mmap.mmap(-1, 4096, flags=0x62)  # MAP_32BIT: where a 32-bit pointer reaches
low.write(struct.pack("III", 40, 1, 0))
def make():
    made = call_32(102, 1, ctypes.addressof(ctypes.c_char.from_buffer(low)))
    if not stat.S_ISSOCK(os.fstat(made).st_mode):
        raise OSError(errno.ENOTSOCK, "the number is that of another call")
step("socketcall", in_child, make)
""",
        UNFILTERED,
        {"": "filter, which ends other architectures", "docker-runsc": "gVisor has no 32-bit calls"},
        refusals=REFUSALS | KILLED | {"EBADF", "ENOTSOCK"},
    ),
    Attack(
        "calls by the x32 numbers",
        "sockets",
        "calls that a filter of plain numbers does not compare",
        "step('socket', in_child, call, 0x40000000 + 41, 40, 1, 0)",
        UNFILTERED,
        FILTER,
        refusals=REFUSALS | KILLED,
        probe=lambda: missing(0x40000000 + 39),
    ),
    Attack(
        "talks to the kernel by netlink",
        "sockets",
        "routes, audit, the firewall, a large surface",
        """
import socket
for protocol in (0, 4, 6, 9, 10, 12, 15, 16):
    step(f"protocol {protocol}", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
""",
        UNFILTERED,
        FILTER,
        wins=("protocol 0", "protocol 15"),
    ),
    Attack(
        "opens raw and rare sockets",
        "sockets",
        "frames of others, forged packets, rarely used protocols",
        """
import socket
step("packet", socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
step("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
for name, family, kind in (("alg", 38, 5), ("key", 15, 3), ("xdp", 44, 3), ("bluetooth", 31, 3),
                           ("can", 29, 3), ("tipc", 30, 5), ("rds", 21, 5), ("x25", 9, 5), ("pppox", 24, 1)):
    step(name, socket.socket, family, kind)
""",
        root_with("NET_RAW", "NET_ADMIN"),
        FILTER,
        wins=("packet", "raw", "xdp"),
    ),
)
