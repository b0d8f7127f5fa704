"""Plays the site of dev/server.py: `python site.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import runpy
import socket
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"

site = ThreadingHTTPServer(("127.0.0.1", 0), runpy.run_path(str(SERVER))["Site"], bind_and_activate=False)
site.socket.close()
site.socket = socket.socket(fileno=int(sys.argv[1]))
site.serve_forever()
