"""As much LDAP (RFC 4511) as it takes to log in and to ask who one is; for tests only."""

from __future__ import annotations

import os
import socket

_WHO_AM_I = b"1.3.6.1.4.1.4203.1.11.3"  # RFC 4532
_SECONDS = 5.0
_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0A
_BIND, _BOUND, _EXTENDED, _ANSWERED = 0x60, 0x61, 0x77, 0x78
_SIMPLE, _REQUEST_NAME, _RESPONSE_VALUE = 0x80, 0x80, 0x8B


class LdapRefused(Exception):
    """The server said no, or something else than LDAP."""


class Conversation:
    """One connection to a directory."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(_SECONDS)
        self._line, self._said, self._number = line, line.makefile("rb"), 0

    @classmethod
    def with_server(cls, host: str, port: int) -> Conversation:
        """Connect over TCP."""
        return cls(socket.create_connection((host, port), timeout=_SECONDS))

    @classmethod
    def through_socket(cls, path: str) -> Conversation:
        """Connect through the way out of a sandbox."""
        folder, _, name = path.rpartition("/")
        os.chdir(folder)  # where the sandbox is a plain process the whole path is too long for a socket's
        line = socket.socket(socket.AF_UNIX)
        line.connect(name)
        return cls(line)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._said.close()
        self._line.close()

    def bind(self, name: str, password: str) -> None:
        """Log in.

        Raises:
            LdapRefused: The server does not take the login.
        """
        version, who = _tag(_INTEGER, b"\x03"), _tag(_OCTETS, name.encode())
        self._ask(_tag(_BIND, version + who + _tag(_SIMPLE, password.encode())), _BOUND)

    def who_am_i(self) -> str:
        """Ask the server whom it takes us for, for example "dn:cn=vault,dc=example,dc=org".

        Raises:
            LdapRefused: It does not say.
        """
        parts = self._ask(_tag(_EXTENDED, _tag(_REQUEST_NAME, _WHO_AM_I)), _ANSWERED)
        return next((value.decode() for tag, value in parts if tag == _RESPONSE_VALUE), "")

    def _ask(self, operation: bytes, expected: int) -> list[tuple[int, bytes]]:
        self._number += 1
        self._line.sendall(_tag(_SEQUENCE, _tag(_INTEGER, bytes([self._number])) + operation))
        message = _split(self._read())
        if len(message) < 2 or message[1][0] != expected:
            raise LdapRefused("the server answered something else")
        parts = _split(message[1][1])
        if not parts or parts[0][0] != _ENUMERATED or any(parts[0][1]):
            raise LdapRefused(f"the server said no: {parts[0][1].hex() if parts else 'nothing'}")
        return parts

    def _read(self) -> bytes:
        head = self._said.read(2)
        if len(head) < 2 or head[0] != _SEQUENCE:
            raise LdapRefused("the server hung up")
        length = head[1]
        if length & 0x80:
            length = int.from_bytes(self._said.read(length & 0x7F), "big")
        return self._said.read(length)


def _tag(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _split(content: bytes) -> list[tuple[int, bytes]]:
    """Cut a content into its elements: tag and content each."""
    found, at = [], 0
    while at + 2 <= len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(content[at : at + size], "big"), at + size
        found.append((tag, content[at : at + length]))
        at += length
    return found
