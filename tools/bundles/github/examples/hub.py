"""Plays the GitHub of dev/server.py, without TLS: `python hub.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import runpy
import socket
import sys
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"

program = runpy.run_path(str(SERVER))
hub = program["Hub"](("reads-for-examples",), ("writes-for-examples",))
program["GitHubServer"](hub, socket.socket(fileno=int(sys.argv[1]))).serve_forever()
