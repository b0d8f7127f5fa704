"""The worker: `python -P -m tools.content.worker SECONDS`, started by the broker and by nobody else.

Its standard input is the socket. It cleans one job after the other, until that ends. The kernel ends it when
one job takes more than SECONDS of processor time, also inside of a parser; how busy the machine is does not
count.
"""

from __future__ import annotations

import signal
import socket
import sys

from tools.content.formats import clean_content
from tools.content.kinds import Cleaned, ContentInvalid, Format, Problem
from tools.content.worker.confinement import ConfinementError, confine
from tools.content.worker.frames import (
    LENGTH,
    Job,
    body_size,
    decode_job,
    encode_done,
    encode_rejected,
)
from tools.content.worker.system_calls import FilterFailed

_SAMPLE = (
    "<style>.a{color:var(--x,red)}</style><p class=a style='opacity:.5;color:#fff'>a &amp; <b>b</b>&nbsp;<br>"
    "<![CDATA[x]]><!-- c -->&#x80;"
)
READY = b"ready"


def main() -> int:
    """Serve one broker to its end.

    Returns:
        0 when the broker ended it, 2 when it could not serve.
    """
    try:
        control, seconds = socket.socket(fileno=0), float(sys.argv[1])
    except (OSError, IndexError, ValueError):
        print("the broker starts this process; it does nothing by itself", file=sys.stderr)
        return 2
    _warm_up()
    try:
        confine()
    except (ConfinementError, FilterFailed, OSError) as error:
        print(f"content worker: {error}", file=sys.stderr)
        return 2
    control.sendall(READY)
    while (length := _receive(control, LENGTH.size)) is not None:
        head = _receive(control, LENGTH.unpack(length)[0])
        body = _receive(control, body_size(head)) if head is not None else None
        if head is None or body is None:
            break
        signal.setitimer(signal.ITIMER_PROF, seconds)
        control.sendall(_answer(decode_job(head, body)))
        signal.setitimer(signal.ITIMER_PROF, 0)
    return 0


def _warm_up() -> None:
    """Load all that cleaning loads, while files can be read."""
    for form in (Format.HTML, Format.MARKDOWN):
        clean_content(form, f"# x *y* [z](http://a.example/?b)\n\n{_SAMPLE}\n\n| a |\n|---|\n")
    clean_content(Format.JSON, '{"a": [1.5]}')


def _answer(job: Job) -> bytes:
    cleaned: list[Cleaned] = []
    for at, (form, text) in enumerate(job.items):
        try:
            cleaned.append(clean_content(form, text, job.origins))
        except ContentInvalid as error:
            return encode_rejected(at, error)
        except Exception:
            # A parser's own fault, brought about by what it read; the text may say what that was.
            return encode_rejected(at, ContentInvalid(Problem.BROKEN))
    return encode_done(cleaned)


def _receive(control: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = control.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
