"""The bearer token of HTTP clients: a file that its owner alone can read.

The server holds the agent's certificate, so whoever reaches its port would be the agent; the token is what
makes a client one. It never stands in a command line, in an environment or in a log.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from toolcrib.mcp.options import OptionInvalid

SHORTEST_CHARACTERS = 32
MADE_BYTES = 32


def read_token(path: Path) -> str:
    """Read the token; make it first where there is no file.

    Raises:
        OptionInvalid: The file can be read by others, holds too short a token, or cannot be read or made.
    """
    try:
        return _make(path)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise OptionInvalid(f"{path}: cannot be written ({error.strerror})") from error


def _make(path: Path) -> str:
    token = secrets.token_urlsafe(MADE_BYTES)
    # O_EXCL: nobody else's file, and no link that somebody laid there, is written to.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token


def _read(path: Path) -> str:
    try:
        # O_NONBLOCK: a pipe that somebody laid there would be waited for without end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(4096).strip()
    except (OSError, ValueError) as error:
        raise OptionInvalid(f"{path}: cannot be read as a token ({error})") from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise OptionInvalid(f"{path}: others can read it; chmod 600 it, and replace the token in it")
    if len(token) < SHORTEST_CHARACTERS or not token.isprintable() or " " in token:
        raise OptionInvalid(
            f"{path}: needs a token of at least {SHORTEST_CHARACTERS} characters; remove the file to get one"
        )
    return token
