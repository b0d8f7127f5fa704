"""Plays the file server of dev/server.py, with one tenant: `python store.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import runpy
import socket
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"

program = runpy.run_path(str(SERVER))
with tempfile.TemporaryDirectory() as folder:
    program["seed"](Path(folder), ["example"])
    logins = ({"username": name, "password": "for-examples"} for name in ("reader", "writer"))
    server = program["FileServer"](Path(folder), *logins)
    server.socket.close()
    server.socket = socket.socket(fileno=int(sys.argv[1]))
    server.serve_forever()
