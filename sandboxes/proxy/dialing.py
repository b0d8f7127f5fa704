"""Connections from the proxy to targets: a name is looked up once, and what is connected to was checked.

    dialer = Dialer(names, trust)                # one per call; names and trust belong to the process
    dialed = await dialer.dial(target, "api.example", opened=True, seconds=5.0)

Rules:
1. One lookup for each connection. Every address that it gives is checked, and one that may not be connected
   to refuses the whole: a name server that mixes addresses is not one to pick from. One that does not answer
   leaves time for the others.
2. The address that was checked is the address that is connected to; nothing is looked up again in between.
3. TLS is verified against the host that the tool asked for, whatever address or `host` the operator declared.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import hashlib
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.addresses import check_address, check_host, is_literal
from sandboxes.proxy.authority import Leaves, load_certificate, make_authority

CheckAddress = Callable[[str, HttpTarget], str | None]
Resolve = Callable[[str, int], list[str]]

_LOOKUPS_PER_HOST = 4
_LOOKUPS_AT_ONCE = 64
"""Threads that wait for the resolver, which cannot be interrupted: 16 names that stall leave no room."""
_STACK_BYTES = 1024 * 1024
_MOST_ADDRESSES = 16
_MOST_CONTEXTS = 64
_STREAM_BYTES = 64 * 1024
_SHUTDOWN_SECONDS = 1.0


class Obstacle(enum.StrEnum):
    """Why no connection was made."""

    HOST = "host"
    """The target's host is written as no host may be."""
    NAME = "name"
    """Its name could not be looked up."""
    ADDRESS = "address"
    """It stands for an address that may not be connected to."""
    CONNECT = "connect"
    """Nothing accepted the connection."""
    TLS = "tls"
    """It did not show a certificate that holds, or no TLS at all."""
    TIME = "time"
    """It took too long."""


class DialFailed(Exception):
    """No connection to a target.

    Attributes:
        kind: Why.
        text: For people: nothing that the target said stands in it.
        address: "address:port" that was tried last; empty when none was.
    """

    def __init__(self, kind: Obstacle, text: str, address: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.address = kind, text, address


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What the proxy shows to a target that asks for a certificate.

    Attributes:
        certificate_pem: The certificate, then its chain.
        key_pem: Its private key, without a password.
    """

    certificate_pem: str = field(repr=False)
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dialed:
    """A connection to a target.

    Attributes:
        address: "address:port" that was reached.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: str


class Names:
    """The resolver of this process. It blocks, so each lookup has a thread; a host has few, and more wait."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        """Begin with no lookup.

        Args:
            resolve: Blocks and gives the addresses of a host; the system's resolver where it is None.
        """
        self._resolve = resolve or _resolve_by_system
        self._busy: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}  # by host: the operator declared them all

    async def look_up(self, host: str, port: int) -> list[str]:
        """Give the addresses of a host, in the resolver's order, each once; wait for a turn before.

        Args:
            host: A name.
            port: What will be connected to.

        Raises:
            DialFailed: There are none, or too many lookups of other hosts wait for an answer.
        """
        turns = self._turns.setdefault(host, asyncio.Semaphore(_LOOKUPS_PER_HOST))
        await turns.acquire()  # given back when the thread has ended, whoever still waits for it
        if self._busy.total() >= _LOOKUPS_AT_ONCE:
            turns.release()
            raise DialFailed(
                Obstacle.NAME, f"{host} cannot be looked up: too many lookups wait for an answer"
            )
        found: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        # Not an executor's thread: those keep a process that ends waiting for a stalled resolver.
        thread = threading.Thread(target=self._wait, args=(host, port, found), name="lookup", daemon=True)
        self._busy[host] += 1
        try:
            thread.start()
        except RuntimeError as error:
            self._finish(host, found, error)
        try:
            return await found
        except Exception as error:
            raise DialFailed(Obstacle.NAME, f"{host} cannot be looked up: {_reason(error)}") from error

    def _wait(self, host: str, port: int, found: asyncio.Future[list[str]]) -> None:
        """Block for an answer; in a thread."""
        result: list[str] | Exception
        try:
            result = self._resolve(host, port)
        except Exception as error:  # whatever it is belongs to the one who waits
            result = error
        with contextlib.suppress(RuntimeError):  # the process ends
            found.get_loop().call_soon_threadsafe(self._finish, host, found, result)

    def _finish(self, host: str, found: asyncio.Future[list[str]], result: list[str] | Exception) -> None:
        self._turns[host].release()
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        if found.done():  # nobody waits any more
            return
        if isinstance(result, list):
            found.set_result(result)
        else:
            found.set_exception(result)


def _resolve_by_system(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_write_address(*entry[4]) for entry in found))


def _write_address(host: str | int, _port: int | bytes, _flow: int = 0, zone: int = 0) -> str:
    """Write an address with its zone, where it has one: so that it is refused."""
    return f"{host}%{zone}" if zone and "%" not in str(host) else str(host)


class Trust:
    """TLS contexts toward targets, kept for the process: reading the system's store takes 20 ms."""

    def __init__(self) -> None:
        self._contexts: dict[bytes, ssl.SSLContext] = {}

    def context(self, ca_pem: str) -> ssl.SSLContext:
        """Give the context that verifies against a target's authorities.

        Args:
            ca_pem: Of `HttpTarget.ca_pem`; empty: the system's store.

        Raises:
            ssl.SSLError: They are no certificates.
        """
        key = hashlib.sha256(ca_pem.encode()).digest()
        context = self._contexts.get(key)
        if context is None:
            context = self.make_context(ca_pem)
            if len(self._contexts) < _MOST_CONTEXTS:
                self._contexts[key] = context
        return context

    def make_context(self, ca_pem: str) -> ssl.SSLContext:
        """Make one that is not kept.

        Raises:
            ssl.SSLError: They are no certificates.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        # A name in the subject is no host's: RFC 9525, 2. Authorities do not have to check it.
        context.hostname_checks_common_name = False
        context.set_alpn_protocols(["http/1.1"])
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context


def load_ahead() -> None:
    """Load what Python and its libraries load on first use: later this process may not read their files.

    Call it once, before rights are dropped; it also bounds what the lookups' threads may take of memory.
    """
    "api.example".encode("idna")  # names are encoded so for the resolver and for TLS
    Trust().make_context("")
    Leaves(make_authority()).context("api.example")
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    threading.stack_size(_STACK_BYTES)
    # glibc reserves 64 MiB of address space for each thread that has its own arena: mallopt(3), M_ARENA_MAX.
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(-8, 2)


class Dialer:
    """Connects to targets for one call; what it knows of a client certificate ends with it."""

    def __init__(
        self, names: Names | None = None, trust: Trust | None = None, check: CheckAddress = check_address
    ) -> None:
        """Begin with no connection.

        Args:
            names: The process's resolver.
            trust: The process's TLS contexts.
            check: Judges an address; only a test of what it stops has another.
        """
        self._names = names or Names()
        self._trust = trust or Trust()
        self._check = check
        self._certified: dict[tuple[str, ClientCertificate], ssl.SSLContext] = {}

    async def dial(
        self,
        target: HttpTarget,
        host: str,
        *,
        opened: bool,
        seconds: float,
        certificate: ClientCertificate | None = None,
    ) -> Dialed:
        """Connect to a target.

        Args:
            target: Its `host` and `port` are connected to.
            host: The host of the origin that was asked for, without port or brackets; TLS is verified for it.
            opened: Whether the proxy speaks TLS to it; False for plain HTTP and for a blind tunnel.
            seconds: For all of it: lookup, connection, handshake.
            certificate: Shown to the target if it asks.

        Raises:
            DialFailed: There is no connection; nothing of it is left open.
        """
        try:
            context = self._context(target, certificate) if opened else None
        except (ssl.SSLError, OSError, ValueError) as error:
            raise DialFailed(Obstacle.TLS, f"its certificates cannot be used: {_reason(error)}") from error
        try:
            until = asyncio.get_running_loop().time() + seconds
            async with asyncio.timeout_at(until):
                addresses = await self._find(target)
                raw, address = await _connect(addresses, target.port, until)
                self._check_peer(raw, target)
                return await _speak(raw, address, context, host)
        except TimeoutError as error:
            raise DialFailed(
                Obstacle.TIME, f"{target.host}:{target.port} was not reached in {seconds:g} s"
            ) from error

    def _context(self, target: HttpTarget, certificate: ClientCertificate | None) -> ssl.SSLContext:
        if certificate is None:
            return self._trust.context(target.ca_pem)
        context = self._certified.get((target.ca_pem, certificate))
        if context is None:
            context = self._trust.make_context(target.ca_pem)
            load_certificate(context, certificate.certificate_pem, certificate.key_pem)
            self._certified[(target.ca_pem, certificate)] = context
        return context

    def _check_peer(self, raw: socket.socket, target: HttpTarget) -> None:
        """Check once more, now what it is connected to: no library in between is taken on trust."""
        try:
            address = _write_address(*raw.getpeername())
        except OSError as error:
            raw.close()
            raise DialFailed(Obstacle.CONNECT, f"it was lost at once: {_reason(error)}") from error
        problem = self._check(address, target)
        if problem is not None:
            raw.close()
            raise DialFailed(Obstacle.ADDRESS, f"{target.host}: {problem}", address)

    async def _find(self, target: HttpTarget) -> list[str]:
        problem = check_host(target.host)
        if problem is not None:
            raise DialFailed(Obstacle.HOST, problem)
        if is_literal(target.host):
            addresses = [target.host]
        else:
            addresses = await self._names.look_up(target.host, target.port)
        for address in addresses:
            problem = self._check(address, target)
            if problem is not None:
                raise DialFailed(Obstacle.ADDRESS, f"{target.host}: {problem}", address)
        if not addresses:
            raise DialFailed(Obstacle.NAME, f"{target.host} has no address")
        return addresses[:_MOST_ADDRESSES]


async def _connect(addresses: Sequence[str], port: int, until: float) -> tuple[socket.socket, str]:
    """Connect to the first that accepts; each has its share of the time, the last one all that is left."""
    loop = asyncio.get_running_loop()
    problem = ""
    for others, address in zip(reversed(range(len(addresses))), addresses, strict=True):
        share = (until - loop.time()) / (others + 1) if others else None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(share):
                # Numeric: asyncio looks up nothing for it.
                await loop.sock_connect(raw, (address, port))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raw.close()
            problem = f"{_join(address, port)} does not accept: {_reason(error)}"
        except BaseException:
            raw.close()
            raise
        else:
            return raw, _join(address, port)
    raise DialFailed(Obstacle.CONNECT, problem, _join(addresses[-1], port))


async def _speak(raw: socket.socket, address: str, context: ssl.SSLContext | None, host: str) -> Dialed:
    try:
        reader, writer = await asyncio.open_connection(
            sock=raw,
            ssl=context,
            server_hostname=host if context else None,
            # A target that does not end TLS properly holds nothing for long.
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS if context else None,
            limit=_STREAM_BYTES,
        )
    except (OSError, ValueError) as error:  # a ValueError: a host that TLS cannot name
        raw.close()
        raise DialFailed(Obstacle.TLS, f"no TLS with {host}: {_reason(error)}", address) from error
    except BaseException:
        raw.close()
        raise
    return Dialed(reader, writer, address)


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _reason(error: Exception) -> str:
    """Say what failed in this machine's words: OpenSSL's, the resolver's, the kernel's; not the target's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or "it does not speak TLS"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no answer"
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
