"""Plays the CRM of dev/server.py, with one token for each scope: `python office.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import runpy
import socket
import sys
import time
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"

program = runpy.run_path(str(SERVER))
office = program["Office"]({}, ["example"], Path("/nonexistent"))
for scope, token in (("contacts.read", "reads-for-maria"), ("notes.write", "writes-for-maria")):
    office.tokens[token] = program["Token"](("example", "maria"), scope, time.time() + 600)
program["CrmServer"](office, socket.socket(fileno=int(sys.argv[1]))).serve_forever()
