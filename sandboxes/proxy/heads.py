r"""The head of a request or an answer: read in one form, and written in no other.

Two parsers that read one head differently are how a request is smuggled past a rule. So a head has one form
here, a part of what h11 reads, and what is outside it is refused, never repaired:

1. Lines end with CR LF, and neither stands alone; no NUL or other control character, but tabs in an answer.
2. No line begins with a space (obs-fold), no space stands before a colon, no line is empty but the last.
3. At most 32 KiB and 100 header lines.
4. At most one Content-Length, of digits alone; at most one Transfer-Encoding, "chunked" alone, in HTTP/1.1
   only; never both. In a request exactly one Host, and no Upgrade.
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from dataclasses import dataclass

Headers = list[tuple[str, str]]

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,19}) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
ASKED_LINE = re.compile(_TOKEN + rb":[\x20-\x7e]*\r\n")
"""A header line of a request."""
ANSWERED_LINE = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n")
"""A header line of an answer."""
_ASKED_LINES = re.compile(rb"(?:" + ASKED_LINE.pattern + rb")*\r\n")
_ANSWERED_LINES = re.compile(rb"(?:" + ANSWERED_LINE.pattern + rb")*\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)
_LONE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\x00")

_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}

END = b"\r\n\r\n"


class HeadInvalid(Exception):
    """It is of no form that every parser reads alike. The text is ours, without anything of the head."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How long the body is: `length` bytes, or else in chunks, or else up to the connection's end."""

    length: int | None
    chunked: bool


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's first part.

    Attributes:
        method: Capital letters.
        target: As it was sent; printable ASCII without spaces.
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
        headers: Names in lower case, values without space around them.
        host: The value of Host; None only in HTTP/1.0.
    """

    method: str
    target: str
    minor: int
    headers: Headers
    framing: Framing
    host: str | None
    expects: bool

    @property
    def has_body(self) -> bool:
        """Whether bytes follow that belong to it."""
        return self.framing.chunked or bool(self.framing.length)


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """An answer's first part, as `RequestHead`."""

    status: int
    minor: int
    headers: Headers
    framing: Framing


def find_lone(raw: bytes | bytearray) -> bool:
    """Tell whether what came of a head so far cannot become one: a CR or LF alone, or a NUL."""
    return _LONE.search(raw) is not None


def read_request(raw: bytes) -> RequestHead:
    """Read the head of a request, up to its empty line.

    Raises:
        HeadInvalid: It is not of the one form.
    """
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise HeadInvalid("the request line is none")
    headers = _read_lines(raw, line.end(), _ASKED_LINES)
    minor = int(line[3])
    named = [value for name, value in headers if name == "host"]
    if len(named) > 1 or (minor and not named):
        raise HeadInvalid("a request has one Host header")
    expects = _read_expectation(headers)
    if any(name == "upgrade" for name, _ in headers):
        raise HeadInvalid("no other protocol can be had here (Upgrade)")
    framing = _read_framing(headers, minor)
    if framing.length is None and not framing.chunked:
        framing = Framing(0, chunked=False)
    host = named[0] if named else None
    return RequestHead(
        line[1].decode(), line[2].decode(), minor, headers, framing, host, expects and minor == 1
    )


def read_answer(raw: bytes) -> AnswerHead:
    """Read the head of an answer, up to its empty line.

    Raises:
        HeadInvalid: It is not of the one form.
    """
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise HeadInvalid("the status line is none")
    headers = _read_lines(raw, line.end(), _ANSWERED_LINES)
    minor = int(line[1])
    return AnswerHead(int(line[2]), minor, headers, _read_framing(headers, minor))


def says_close(headers: Headers) -> bool:
    """Tell whether these say that the connection ends with this message."""
    return any(
        part.strip().lower() == "close"
        for name, value in headers
        if name == "connection"
        for part in value.split(",")
    )


def write_request(method: str, target: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the head of a request.

    Raises:
        HeadInvalid: It would be of another form: something in it has an end of line, above all.
    """
    line = f"{method} {target} HTTP/1.1\r\n".encode("latin-1")
    if not _REQUEST_LINE.fullmatch(line):
        raise HeadInvalid("the request line is none")
    return line + _write_lines(headers)


def write_answer(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the head of an answer, with the reason that is usual.

    Raises:
        HeadInvalid: It would be of another form.
    """
    return b"HTTP/1.1 %d %b\r\n%b" % (status, _REASONS.get(status, b""), _write_lines(headers))


def _write_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = []
    for name, value in headers:
        # With an end of line in it, one header is two of the right form; with a colon in its name, another.
        if b"\n" in value or not _NAME.fullmatch(name):
            raise HeadInvalid("a header line is none")
        lines.append(b"%b: %b\r\n" % (name, value))
    data = b"".join(lines) + b"\r\n"
    if not _ANSWERED_LINES.fullmatch(data):
        raise HeadInvalid("a header line is none")
    return data


def _read_lines(raw: bytes, start: int, form: re.Pattern[bytes]) -> Headers:
    if len(raw) > MAX_HEAD_BYTES:
        raise HeadInvalid(f"the head is longer than {MAX_HEAD_BYTES} bytes")
    if not form.fullmatch(raw, start):
        raise HeadInvalid("a header line is none")
    lines = raw[start:-4].decode("latin-1").split("\r\n") if len(raw) - start > 4 else []
    if len(lines) > MAX_HEADERS:
        raise HeadInvalid(f"there are more than {MAX_HEADERS} headers")
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.lower(), value.strip(" \t")))
    return headers


def _read_framing(headers: Headers, minor: int) -> Framing:
    lengths = [value for name, value in headers if name == "content-length"]
    codings = [value for name, value in headers if name == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise HeadInvalid("its length is said twice")
    if codings and (codings[0].lower() != "chunked" or minor == 0):
        raise HeadInvalid("a body comes whole or in chunks, nothing else (Transfer-Encoding)")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise HeadInvalid("its length is no number")
    return Framing(int(lengths[0]) if lengths else None, bool(codings))


def _read_expectation(headers: Headers) -> bool:
    expected = [value.lower() for name, value in headers if name == "expect"]
    if expected and expected != ["100-continue"]:
        raise HeadInvalid("it expects what nobody promises (Expect)")
    return bool(expected)
