"""One container of the Docker Engine that lives for one call.

Its handler is loaded before the call; nothing of a call is in it before `run`. Its end is confirmed by the
kernel where we see its processes: PID 1 of a process namespace is gone only when all others are. The engine's
book-keeping of a container that is dead comes later, and is the driver's to see through.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sandboxes.doorway import Doorway
from sandboxes.engine_api import EngineApi, EngineAway, EngineNotFound, EngineStalled
from sandboxes.exchange import Conversing, Exchange
from sandboxes.outcome import (
    SandboxError,
    SandboxSpec,
    SandboxUnavailable,
)
from sandboxes.processes import kill_processes
from sandboxes.runtimes import Runtime
from sandboxes.stream import Stream
from sandboxes.watched_process import find_cpu_file, has_ended, read_cpu_file, wait_for_end

_END_SECONDS = 2.0  # for the engine to say how a sandbox ended
_NOT_MET = "its init could not reach the broker's socket; gVisor needs --host-uds=open (docs/runtimes.md)"
_MEET_SECONDS, _LOOK_SECONDS = 10.0, 0.25
_KILL_SECONDS = 0.5  # for the kernel to end what was killed; without the right to kill, the engine does it


class DockerSandbox(Conversing):
    """A container of the Docker Engine.

    Attributes:
        name: What the engine knows it by, from before it exists.
        container_id: Empty until it is made.
        made: When it was made.
        gone: Since when none of its processes is left; None before, and where that could not be confirmed.
    """

    def __init__(self, api: EngineApi, spec: SandboxSpec, name: str, clock: Callable[[], datetime]) -> None:
        self._api, self._spec, self._clock = api, spec, clock
        self.name = name
        self.container_id = ""
        self.image_id, self.uid = spec.image_id, spec.uid
        self.made = clock()
        self.gone: datetime | None = None
        self._stream: Stream | None = None
        self._exchange: Exchange | None = None
        self._process: int | None = None
        self._cpu_file: Path | None = None
        self._asked = self._uncertain = False
        self._one_end = asyncio.Lock()  # call, pool and driver may all want its end, of one descriptor

    async def make(self, config: dict[str, Any], door: Doorway, runtime: Runtime) -> None:
        """Create and start the container, and wait for init. Called by the driver.

        Raises:
            SandboxUnavailable: The engine is missing, stalls or refuses, or init does not come.
        """
        self._asked = True
        try:
            self.container_id = created = await self._api.create(config, self.name)
        except (EngineStalled, asyncio.CancelledError) as error:
            fault = error.__cause__ if isinstance(error, asyncio.CancelledError) else error
            self._asked = not isinstance(fault, EngineAway)
            self._uncertain = self._asked and isinstance(fault, EngineStalled)
            raise
        await self._api.start(created)
        await self._find_process()
        self._stream = await Stream.over(await self._meet(door))
        self._exchange = Exchange(self._stream, self._spec, self._why_ended)
        network_of = self._process if runtime.has_kernel_network else None
        self._exchange.be_born(runtime.birth_flags, network_of)

    @property
    def is_alive(self) -> bool:
        """Whether it can still serve its call, as far as that is known without asking anybody."""
        if self._exchange is None or not self._exchange.is_fresh or self.gone is not None:
            return False
        return self._process is None or not has_ended(self._process)

    def cpu_seconds(self) -> float | None:
        """Tell the processor time that everything in it has used; None where that cannot be read."""
        return None if self._cpu_file is None else read_cpu_file(self._cpu_file)

    async def end(self) -> bool:
        """Close the stream, kill, and confirm; safe to call again.

        Where the kernel cannot confirm it to us, the engine has to.

        Returns:
            True when the end is confirmed.
        """
        if self._stream is not None:
            self._stream.close()
        self._kill_process()
        async with self._one_end:
            if self.gone is not None:
                return True
            if self._process is not None and await wait_for_end(self._process, _KILL_SECONDS):
                self._note_gone()
                return True
            return await self._remove()

    async def remove(self) -> bool:
        """Have the engine forget it, dead or not. Called by the driver; safe to call again.

        Returns:
            True when it has, and nothing of the container is left.
        """
        async with self._one_end:
            return await self._remove()

    async def _remove(self) -> bool:
        if not self._asked:  # there is nothing of it, and maybe no engine to say so
            self._note_gone()
            return True
        try:
            await self._api.remove(self.container_id or self.name)
        except SandboxUnavailable:
            return False
        if self._uncertain:  # the engine may make it yet: look again later
            self._uncertain = False
            return False
        if not await self._is_empty():
            return False
        self._note_gone()
        return True

    async def _is_empty(self) -> bool:
        """See that none of its processes is left; a start that failed may have left some of the runtime's."""
        if self._process is not None:
            return await wait_for_end(self._process, _END_SECONDS)
        if self.gone is not None or not self.container_id:
            return True
        return await asyncio.to_thread(kill_processes, self.container_id)

    def _note_gone(self) -> None:
        self.gone = self.gone or self._clock()
        if self._process is not None:
            os.close(self._process)
            self._process = None

    async def _why_ended(self) -> str:
        """Ask the engine what ended it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                return await self._ask_why_ended()
        return "the engine lost the sandbox during the call"

    async def _ask_why_ended(self) -> str:
        try:
            state = (await self._api.wait(self.container_id))["State"]
        except EngineNotFound:
            return "the sandbox vanished during the call"
        except SandboxError:
            return "the engine lost the sandbox during the call"
        if state["OOMKilled"]:
            return f"out of memory: the limit is {self._spec.limits.memory_mib} MiB"
        return ""

    async def _meet(self, door: Doorway) -> socket.socket:
        """Wait for init at its door, as long as it lives."""
        coming = asyncio.create_task(door.accept())
        try:
            async with asyncio.timeout(_MEET_SECONDS):
                while not coming.done():
                    await asyncio.wait((coming,), timeout=_LOOK_SECONDS)
                    if not coming.done() and self._process is not None and has_ended(self._process):
                        why = await self._why_ended() or _NOT_MET
                        raise SandboxUnavailable(f"the sandbox ended at once: {why}")
            return coming.result()
        except TimeoutError as error:
            raise SandboxUnavailable("the sandbox does not start: its init did not come") from error
        except BaseException:
            if coming.done() and not coming.cancelled() and coming.exception() is None:
                coming.result().close()
            raise
        finally:
            coming.cancel()
            await asyncio.wait((coming,))  # before the door is closed: the loop still watches its descriptor

    async def _find_process(self) -> None:
        """Hold on to init by a descriptor: its end is known even when the engine is not there to ask."""
        pid = int((await self._api.inspect(self.container_id))["State"]["Pid"])
        if pid <= 0:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        cgroups = _cgroups_of(pid)
        if self.container_id in cgroups:
            self._process, self._cpu_file = descriptor, find_cpu_file(cgroups)
        else:  # the engine counts its processes in another namespace, or it ended already
            os.close(descriptor)

    def _kill_process(self) -> None:
        """Kill init, and with it the whole sandbox, without asking the engine, where we may."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)


def _cgroups_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
