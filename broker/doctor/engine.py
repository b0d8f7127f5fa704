"""The doctor's look at the Docker Engine, and at what nobody owns: containers, and processes without one."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from broker.doctor.finding import Finding, bad, fine
from broker.settings import Settings
from broker.store.inspection import StateView
from sandboxes.engine import Engine, EngineInfo, EngineMissing
from sandboxes.engine_api import EngineApi
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION
from sandboxes.outcome import SandboxError
from sandboxes.reaper import Reaper
from sandboxes.runtimes import RUNTIMES


async def check_engine(settings: Settings, view: StateView | None) -> list[Finding]:
    """Look at the engine, where a class is mapped to it."""
    names = [RUNTIMES[name].runtime for name in settings.sandboxes.classes.values() if name in RUNTIMES]
    if not names:
        return _find_processes(view)
    with closing(Engine(settings.engine.url)) as engine:
        api = EngineApi(engine)
        try:
            info = await asyncio.to_thread(engine.info)
            findings = [bad("engine", problem, "see docs/operating.md") for problem in info.problems]
            findings += _check_socket(engine.socket_path)
            findings += _check_runtimes(info, names)
            if view is not None:
                findings += await _find_containers(api, view)
            return findings + _find_processes(view)
        except EngineMissing:
            text = f"no Docker Engine answers at {engine.base_url}"
            return [bad("engine", text, "install and start it (Debian: docker.io), or correct engine.url")]
        except SandboxError as error:
            return [bad("engine", str(error), "restart it, or correct engine.url")]
        finally:
            await api.close()


def _check_socket(path: Path) -> Iterator[Finding]:
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        text = f"{path}: everybody on this machine may use it, which is to be root"
        yield bad("engine", text, f"chmod o= {path}")


def _check_runtimes(info: EngineInfo, wanted: Sequence[str]) -> Iterator[Finding]:
    for name in sorted(set(wanted) - set(info.runtimes)):
        text = f"{info.describe()} has no runtime {name}, which a class is mapped to"
        yield bad("engine", text, f"install {name} and name it in the engine's daemon.json: docs/runtimes.md")
    named = ", ".join(name for name in info.runtimes if not name.startswith("io.containerd."))
    users = "on" if info.user_namespaces else "off"
    groups = f"cgroup v{info.cgroup_version} by {info.cgroup_driver}"
    yield fine("engine", f"{info.describe()}, runtimes {named}; {groups}; user namespaces {users}")


def _find_processes(view: StateView | None) -> list[Finding]:
    """Find what runs in control groups of epochs that are over, whatever the engine knows of it."""
    if view is None:
        return []
    dead = [epoch for epoch in Reaper(view.installation, view.live_epoch).find_dead() if epoch.processes()]
    if not dead:
        return []
    count = len({pid for epoch in dead for pid in epoch.processes()})
    text = f"{count} of sandboxes whose broker died, of epoch {', '.join(str(one.number) for one in dead)}"
    return [bad("processes", text, "the running broker ends them" if view.live_epoch else "start the broker")]


async def _find_containers(api: EngineApi, view: StateView) -> list[Finding]:
    """Find containers of this installation that no running broker made."""
    ours = await api.list([f"{LABEL_INSTALLATION}={view.installation}"])
    dead = [item["Id"][:12] for item in ours if item["Labels"].get(LABEL_EPOCH) != str(view.live_epoch)]
    if not dead:
        return []
    remedy = f"docker rm -f {' '.join(dead[:5])}" if view.live_epoch else "start the broker: it removes them"
    return [bad("containers", f"{len(dead)} left by a broker that died: {', '.join(dead[:5])}", remedy)]
