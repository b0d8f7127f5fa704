"""Plays a database that lets nobody in: `python closed.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import socket
import sys

listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    listening.accept()[0].close()
