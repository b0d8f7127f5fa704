"""A resident that plays the world: public, private and metadata addresses, and somebody who answers there.

It has a network namespace of its own like every sandbox; nothing in it is outside. A control's attacker
shares that network, so that its program is seen to reach what is within reach.
"""

from __future__ import annotations

from sandboxes.hardening import Measure
from tests.attacks.arena import Control
from tests.attacks.residents import standing_in

WORLD = """
import fcntl, socket, threading

def give(address, label):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        place = struct.pack("16sHH4s16x", label.encode(), socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(door, 0x8916, place)

def give6(address):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as door:
        place = struct.pack("=16sIi", socket.inet_pton(socket.AF_INET6, address), 64, 1)
        fcntl.ioctl(door, 0x8916, place)

def answer_streams(door):
    while True:
        visitor, _ = door.accept()
        visitor.sendall(b"hello")

def answer_datagrams(door):
    while True:
        data, sender = door.recvfrom(2048)
        if data[:5] == b"knock":
            door.sendto(b"hello", sender)
            continue
        end = data.index(b"\\0", 12) + 5
        head = data[:2] + b"\\x81\\x80" + data[4:6] + data[4:6] + bytes(4)
        door.sendto(head + data[12:end] + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x7f\\0\\0\\1", sender)

def serve(family, kind, address, port):
    door = socket.socket(family, kind)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    door.bind((address, port))
    if kind == socket.SOCK_STREAM:
        door.listen()
    else:
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
        if family == socket.AF_INET:
            door.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    work = answer_streams if kind == socket.SOCK_STREAM else answer_datagrams
    threading.Thread(target=work, args=(door,), daemon=True).start()

for number, address in enumerate(("169.254.169.254", "192.88.99.53", "10.0.0.1", "172.17.0.1")):
    give(address, f"lo:{number}")
for address in ("fd00:ec2::254", "fe80::1"):
    give6(address)
for port in (53, 80):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        serve(socket.AF_INET, kind, "0.0.0.0", port)
        serve(socket.AF_INET6, kind, "::", port)
wait()
"""

NET_ADMIN = Measure("net-admin", "HostConfig.CapAdd", lambda spec: ["NET_ADMIN"], "nothing")
_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv6.conf.all.disable_ipv6": "0"}
SYSCTLS = Measure("sysctls", "HostConfig.Sysctls", lambda spec: _SYSCTLS, "nothing")
IN_WORLD = Control(
    says="no-network: it shares a network in which somebody answers",
    ground=standing_in(
        WORLD,
        Control(without=("identity", "no-capabilities", "seccomp", "hostname"), add=(NET_ADMIN, SYSCTLS)),
    ),
)
