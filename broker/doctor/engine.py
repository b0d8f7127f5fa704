"""The doctor's look at the Docker Engine, and at containers that nobody owns."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from broker.doctor.finding import Finding, bad, fine
from broker.settings import Settings
from broker.store.inspection import StateView
from sandboxes.engine import Engine, EngineMissing
from sandboxes.engine_calls import EngineCalls
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION
from sandboxes.outcome import SandboxError

RUNTIME = "runc"
STRONG_RUNTIME = "runsc"


async def check_engine(settings: Settings, view: StateView | None) -> list[Finding]:
    """Look at the engine."""
    with closing(Engine(settings.engine.url)) as engine:
        calls = EngineCalls(engine)
        try:
            info = await calls.run(engine.info)
            findings = [bad("engine", problem, "see docs/operating.md") for problem in info.problems]
            findings += _check_socket(engine.socket_path)
            findings += _check_runtimes(info.describe(), info.runtimes)
            if view is not None:
                findings += await _find_containers(calls, view)
            return findings
        except EngineMissing:
            text = f"no Docker Engine answers at {engine.base_url}"
            return [bad("engine", text, "install and start it (Debian: docker.io), or correct engine.url")]
        except SandboxError as error:
            return [bad("engine", str(error), "restart it, or correct engine.url")]
        finally:
            calls.close()


def _check_socket(path: Path) -> Iterator[Finding]:
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        text = f"{path}: everybody on this machine may use it, which is to be root"
        yield bad("engine", text, f"chmod o= {path}")


def _check_runtimes(engine: str, runtimes: tuple[str, ...]) -> Iterator[Finding]:
    if RUNTIME not in runtimes:
        yield bad("engine", f"{engine} has no runtime {RUNTIME}", f"install {RUNTIME}")
        return
    named = ", ".join(name for name in runtimes if not name.startswith("io.containerd."))
    strong = "" if STRONG_RUNTIME in runtimes else f"; no {STRONG_RUNTIME} (for strong isolation)"
    yield fine("engine", f"{engine}, runtimes {named}{strong}")


async def _find_containers(calls: EngineCalls, view: StateView) -> list[Finding]:
    """Find containers of this installation that no running broker made."""
    ours = await calls.list([f"{LABEL_INSTALLATION}={view.installation}"])
    dead = [item["Id"][:12] for item in ours if item["Labels"].get(LABEL_EPOCH) != str(view.live_epoch)]
    if not dead:
        return []
    remedy = f"docker rm -f {' '.join(dead[:5])}" if view.live_epoch else "start the broker: it removes them"
    return [bad("containers", f"{len(dead)} left by a broker that died: {', '.join(dead[:5])}", remedy)]
