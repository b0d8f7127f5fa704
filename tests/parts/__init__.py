"""Fixtures for the real parts: Docker Engine, OpenBao, PostgreSQL, nginx, OpenSSH.

A part that is missing makes the tests fail, unless it is named in TOOLCRIB_WITHOUT (comma-separated: engine,
runsc, bubblewrap, openbao, postgres, node, nginx, sshd, ldap); then the tests that need it are skipped.
"""

from __future__ import annotations

import os

REAL_PARTS: list[str] = []
"""What really ran, for the summary; each fixture adds a line such as "Docker Engine 20.10.24 (runc)"."""


def without(part: str) -> bool:
    """Tell whether the person who runs the tests said to do without a part.

    Args:
        part: "engine", "runsc", "bubblewrap", "openbao", "postgres", "node", "nginx" or "sshd".
    """
    named = os.environ.get("TOOLCRIB_WITHOUT", "").replace(" ", "").split(",")
    return part in named
