"""The way from OpenSSH's client to the target's unix socket.

A sandbox has no shell, so no ProxyCommand: OpenSSH would start one. Instead this process listens on the
sandbox's own loopback and carries the bytes to the socket. Rules:

1. The host key is the one that the operator declared (`settings.host_key`); any other ends the call.
2. Key and certificate lie in the sandbox's own memory, readable by this user, and go away with it.
3. OpenSSH finds all of it in the home folder of its user. The sandbox's user id has no name, which OpenSSH
   refuses, so libnss_wrapper gives it one.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolcrib.handler import Failure, SshLogin

if TYPE_CHECKING:
    from toolcrib.handler import Context, Target

USER = "tool"
_NSS_WRAPPER = "/usr/lib/*/libnss_wrapper.so"
_SETTINGS = """\
Host *
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias {alias}
  User {user}
  IdentityFile {home}/.ssh/key
  CertificateFile {home}/.ssh/key-cert.pub
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  BatchMode yes
  StrictHostKeyChecking yes
  UserKnownHostsFile {home}/.ssh/known_hosts
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  CheckHostIP no
  ForwardAgent no
  ForwardX11 no
  ClearAllForwardings yes
  ControlMaster no
  ConnectTimeout 10
  LogLevel ERROR
"""


@contextlib.asynccontextmanager
async def open_route(context: Context, name: str, credential: str) -> AsyncIterator[dict[str, str]]:
    """Hold a way to a target; yields the environment with which git and OpenSSH find it.

    Args:
        context: The call's context.
        name: The target's; it is also the host name in git's addresses.
        credential: The manifest's name of the SSH credential.

    Raises:
        Failure: TARGET_NOT_SET_UP.
    """
    target, login = context.targets[name], context.credential(credential, SshLogin)
    host_key = target.settings.get("host_key", "")
    if not host_key or "\n" in host_key:
        text = f"The operator has not declared settings.host_key of the target {name}; nothing was changed."
        raise Failure("TARGET_NOT_SET_UP", text)
    async with _Relay(target) as port:
        with tempfile.TemporaryDirectory(prefix="route-") as folder:
            home = Path(folder)
            settings = _SETTINGS.format(port=port, alias=name, user=login.username, home=home)
            _write_files(home, login, settings, f"{name} {host_key}\n")
            yield _environment(home)


class _Relay:
    """Listens on loopback and carries each connection to a target's socket."""

    def __init__(self, target: Target) -> None:
        self._socket_path = target.socket_path
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._socket_path)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except OSError:
            return  # OpenSSH sees that it is closed, and says so
        finally:
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


def _write_files(home: Path, login: SshLogin, settings: str, known_hosts: str) -> None:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    for path, text in (
        (folder / "config", settings),
        (folder / "known_hosts", known_hosts),
        (folder / "key", login.private_key.rstrip("\n") + "\n"),
        (folder / "key-cert.pub", login.certificate.rstrip("\n") + "\n"),
        (home / "passwd", f"{USER}:x:{os.getuid()}:{os.getgid()}::{home}:/usr/sbin/nologin\n"),
        (home / "group", f"{USER}:x:{os.getgid()}:\n"),
    ):
        path.touch(mode=0o600)
        path.write_text(text)


def _environment(home: Path) -> dict[str, str]:
    (library,) = glob.glob(_NSS_WRAPPER)  # noqa: PTH207 - pathlib cannot begin at the root
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LD_PRELOAD": library,
        "NSS_WRAPPER_PASSWD": str(home / "passwd"),
        "NSS_WRAPPER_GROUP": str(home / "group"),
        "GIT_SSH": "/usr/bin/ssh",  # a program without arguments: git would start a shell for more
        "GIT_SSH_VARIANT": "ssh",
        "GIT_ALLOW_PROTOCOL": "ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
