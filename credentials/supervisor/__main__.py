"""The supervisor: `python -P -m credentials.supervisor PIDFD`, started by the broker and by nobody else.

Its standard input is the control socket, PIDFD a descriptor that it inherits. See credentials/supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from datetime import UTC, datetime

from credentials.supervisor.confinement import ConfinementError, confine, turn_deaf
from credentials.supervisor.messages import MAX_PACKET_BYTES, Begin, Garbled, Ready, Refused, decode, encode
from credentials.supervisor.token_client import AddressInvalid, TokenClient
from credentials.supervisor.watch import Ending, Watch


def main() -> int:
    """Serve one broker to its end."""
    turn_deaf()
    control = socket.socket(fileno=0)
    try:
        client = _begin(control)
    except (Garbled, AddressInvalid, ConfinementError) as error:
        with contextlib.suppress(OSError):
            control.send(encode(Refused(str(error))))
        return 1
    except OSError:  # the broker is gone already
        return 1
    ending = Watch(control, int(sys.argv[1]), client).run()
    if ending not in (Ending.RELEASED, Ending.NOTHING_HELD):
        _log(ending)
    return 0


def _begin(control: socket.socket) -> TokenClient:
    begin = decode(control.recv(MAX_PACKET_BYTES))
    if not isinstance(begin, Begin):
        raise Garbled("another message came before the first")
    client = TokenClient(begin)
    "localhost".encode("idna")  # loads what names are encoded with, while its files can be read
    confine()
    control.send(encode(Ready(os.geteuid())))
    return client


def _log(ending: Ending) -> None:
    """Write what the broker cannot write any more, as its own log would; nothing waits for it by now."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "error" if ending is Ending.GAVE_UP else "warning",
        "logger": "credentials.supervisor",
        "message": ending.value,
    }
    with contextlib.suppress(OSError):
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    code = main()
    os._exit(code)  # a renewal that stalls in its thread does not delay the end
