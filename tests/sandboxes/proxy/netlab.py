"""A network of its own for one process: addresses, a name server, listeners that count, a capture.

To be entered with `unshare --mount --net`; nothing of it outlives the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.server
import ipaddress
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_TCP, _UDP = 6, 17
_MARK_PORT = 9
_CLONE_NEWNET = 0x40000000


def raise_loopback(addresses: Iterable[str] = ()) -> None:
    """Bring loopback up, with more addresses."""
    lines = ["link set lo up"]
    for address in addresses:
        bits = ipaddress.ip_address(address).max_prefixlen
        lines.append(f"addr add {address}/{bits} dev lo" + (" nodad" if bits == 128 else ""))
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def use_own_resolver(folder: Path) -> None:
    """Have this mount namespace ask the name server of the lab."""
    files = {
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n",
        "nsswitch.conf": "hosts: files dns\n",
        "hosts": "127.0.0.1 localhost\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)
        subprocess.run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)


class NameServer(threading.Thread):
    """Answers from a table; a name may have several answers, which it gives in turn, the last for ever.

    Attributes:
        asked: How often it was asked for "NAME TYPE".
    """

    def __init__(self, table: Mapping[str, Sequence[Sequence[str]]], aliases: Mapping[str, str]) -> None:
        super().__init__(daemon=True)
        self._table, self._aliases = table, aliases
        self.asked: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))

    def run(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4_096)
            with contextlib.suppress(Exception):
                self._socket.sendto(self._answer(dns.message.from_wire(query)).to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        question = query.question[0]
        asked = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        name = self._aliases.get(asked, asked)
        turn = self.asked[f"{asked} {kind}"]
        self.asked[f"{asked} {kind}"] += 1
        if name not in self._table:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        if name != asked:
            answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", "CNAME", f"{name}."))
        turns = self._table[name]
        addresses = turns[min(turn, len(turns) - 1)]
        fitting = [address for address in addresses if (":" in address) == (kind == "AAAA")]
        if fitting and kind in {"A", "AAAA"}:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 0, "IN", kind, *fitting))
        return answer


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 256

    def __init__(self, address: str, port: int, counts: Counter[str]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.counts = counts
        super().__init__((address, port), _Answer, bind_and_activate=False)
        if ":" in address:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.server_bind()
        self.server_activate()

    def process_request(self, request, client_address) -> None:
        local = request.getsockname()
        # Counted before anything is read: to connect is all that the attack needs.
        self.counts[f"{local[0].partition('%')[0]} {local[1]}"] += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address) -> None:
        pass  # a client that goes away


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = parse_qs(urlsplit(self.path).query).get("to")
        self.send_response(302 if wanted else 200)
        if wanted:
            self.send_header("Location", wanted[0])
        self.send_header("Content-Length", "4")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_words) -> None:
        pass


def listen_everywhere(*ports: int) -> Counter[str]:
    """Serve HTTP at every address of this namespace; gives the count of connections by "address port"."""
    counts: Counter[str] = Counter()
    for port in ports:
        for address in ("0.0.0.0", "::"):
            threading.Thread(target=_Server(address, port, counts).serve_forever, daemon=True).start()
    return counts


class Capture(threading.Thread):
    """Sees every packet on this namespace's loopback.

    Attributes:
        seen: "tcp ADDRESS PORT" of each TCP connection that was tried, "udp ADDRESS PORT" of each datagram,
            "other ADDRESS PROTOCOL" of what is neither. Left out are ICMP, by which the kernel says that
            nobody is there, and what the lab's name server answers.
    """

    def __init__(self, network: Path | None = None) -> None:
        """Begin to listen.

        Args:
            network: Another network namespace, "/proc/PID/ns/net"; None: this one.
        """
        super().__init__(daemon=True)
        self.seen: Counter[str] = Counter()
        with ThreadPoolExecutor(1) as aside:  # a socket stays in the namespace that its thread was in
            if network is not None:
                aside.submit(_enter, network).result()
            self._socket = aside.submit(_listen_to_packets).result()
            self._sender = aside.submit(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).result()

    def run(self) -> None:
        while True:
            packet = self._socket.recv(65_535)
            line = _describe(packet)
            if line:
                self.seen[line] += 1

    def settle(self) -> Counter[str]:
        """Wait until all that was sent before this is seen; fails if a packet was missed."""
        mark = f"udp 127.0.0.1 {_MARK_PORT}"
        before = self.seen[mark]
        self._sender.sendto(b"mark", ("127.0.0.1", _MARK_PORT))
        until = time.monotonic() + 30
        while self.seen[mark] == before and time.monotonic() < until:
            time.sleep(0.01)
        missed = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        if missed or self.seen[mark] == before:
            raise RuntimeError(f"the capture missed {missed} packets, or its mark")
        return Counter({line: count for line, count in self.seen.items() if line != mark})


def _enter(network: Path) -> None:
    with network.open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"{network} cannot be entered")


def _listen_to_packets() -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * 1024 * 1024)
    listener.bind(("lo", _ETH_P_ALL))
    return listener


def _describe(packet: bytes) -> str:
    if packet[0] >> 4 == 4:
        address, protocol = socket.inet_ntop(socket.AF_INET, packet[16:20]), packet[9]
        payload = packet[(packet[0] & 15) * 4 :]
    else:
        address, protocol = socket.inet_ntop(socket.AF_INET6, packet[24:40]), packet[6]
        payload = packet[40:]
    port = int.from_bytes(payload[2:4], "big")
    if protocol == _TCP:
        is_first = payload[13] & 0x12 == 0x02  # SYN without ACK
        return f"tcp {address} {port}" if is_first else ""
    if protocol == _UDP:
        return "" if payload[:2] == b"\x00\x35" else f"udp {address} {port}"
    return "" if protocol in {1, 58} else f"other {address} {protocol}"


@contextmanager
def growth(counts: Counter[str]) -> Iterator[Counter[str]]:
    """Hold what was counted within the block."""
    before, grown = Counter(counts), Counter[str]()
    yield grown
    grown.update(counts - before)
