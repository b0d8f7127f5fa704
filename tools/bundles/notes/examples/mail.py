"""Plays the mail server of dev/server.py: `python mail.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import asyncio
import runpy
import socket
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"


async def main() -> None:
    """Serve until somebody ends this process."""
    program = runpy.run_path(str(SERVER))
    login = {"username": "toolcrib", "password": "for-examples"}
    with tempfile.TemporaryDirectory() as folder:
        listening = socket.socket(fileno=int(sys.argv[1]))
        server = await program["listen"](Path(folder), login, listening)
        await server.serve_forever()


asyncio.run(main())
