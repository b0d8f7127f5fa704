"""The doctor's look at the isolation classes: which driver serves each, proven by running one sandbox.

Each sandbox is made for an installation of its own, that no broker has, and is gone when its proof is over.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import get_args

import yaml

from broker.doctor.finding import Finding, bad, fine, warn
from broker.fleet_setup import WEAK, make_driver
from broker.packing import open_folders
from broker.settings import DriverName, IsolationClass, Settings, SettingsInvalid
from broker.store.inspection import StateView
from broker.store.records import Epoch
from sandboxes.engine import Engine
from sandboxes.image_store import BASE_REPOSITORY, image_name, inspect
from sandboxes.outcome import SandboxError
from sandboxes.proof import Proof, ProofFailed, prove
from sandboxes.reaper import Reaper
from sandboxes.rootfs import content_key
from sandboxes.runtimes import RUNSC, RUNTIMES
from sandboxes.sandbox import Driver

_CHECK_SECONDS = 60.0
_MAP = "map it under [sandboxes.classes]; see docs/runtimes.md"
_REMEDY = "see docs/runtimes.md; until then its tools do not run"


async def check_isolation(settings: Settings, view: StateView | None) -> list[Finding]:
    """Say for each class what serves it, and prove that it does."""
    served = settings.sandboxes.classes
    proofs = {name: await _prove(name, settings) for name in dict.fromkeys(served.values())}
    findings = [_describe(isolation, name, proofs[name]) for isolation, name in served.items()]
    findings += [_check_weak(isolation, name, settings) for isolation, name in served.items() if name in WEAK]
    unserved = [isolation for isolation in get_args(IsolationClass) if isolation not in served]
    wanted = _wanted(view.manifests if view else ())
    return [*findings, *(_describe_unserved(isolation, isolation in wanted) for isolation in unserved)]


def _describe(isolation: str, name: str, found: Proof | Finding) -> Finding:
    subject = f"class {isolation}"
    if isinstance(found, Finding):
        return Finding(subject, found.level, f"{name}: {found.text}", found.remedy)
    times = (found.ready_seconds, found.call_seconds, found.gone_seconds)
    ready, call, gone = (f"{seconds * 1000:.0f} ms" for seconds in times)
    text = f"{name} serves it: a sandbox was ready after {ready}, answered in {call}, was gone after {gone}"
    return fine(subject, text)


def _check_weak(isolation: str, name: str, settings: Settings) -> Finding:
    text = f"{name} is weaker than a container of the engine and meant for development"
    if settings.sandboxes.allow_weak or settings.development:
        return warn(f"class {isolation}", text, "map the class to docker-runc or docker-runsc")
    return bad(
        f"class {isolation}", f"{text}: serve refuses it", "map the class to docker-runc or docker-runsc"
    )


def _describe_unserved(isolation: str, is_wanted: bool) -> Finding:
    subject, text = f"class {isolation}", "no driver serves it"
    if is_wanted:
        return bad(subject, f"{text}, and a registered tool asks for it: its calls are refused", _MAP)
    return fine(subject, f"{text}; a tool that asks for it would not run")


def _wanted(manifests: Iterable[tuple[str, str]]) -> set[str]:
    """The classes that registered bundles ask for; they were checked when they were registered."""
    return {str((yaml.safe_load(text) or {}).get("isolation", "container")) for _, text in manifests}


async def _prove(name: DriverName, settings: Settings) -> Proof | Finding:
    epoch = Epoch(f"doctor-{uuid.uuid4()}", 1)
    try:
        driver = make_driver(name, settings, epoch)
    except SettingsInvalid as error:
        return bad(name, str(error), _REMEDY)
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await driver.start()
            return await _run(driver, name, settings)
    except ProofFailed as error:
        return bad(name, str(error), error.remedy)
    except SandboxError as error:
        return bad(name, str(error), _REMEDY)
    except TimeoutError:
        return bad(name, f"it took longer than {_CHECK_SECONDS:g} s", "restart what runs its sandboxes")
    finally:
        await driver.close()
        # A runtime with wrong arguments may fail at the start and leave its own processes.
        await asyncio.to_thread(Reaper(epoch.installation, 0).reap)


async def _run(driver: Driver, name: DriverName, settings: Settings) -> Proof | Finding:
    image_id = await asyncio.to_thread(_find_image, name, settings)
    if image_id is None:
        text = "it is fit, but there is no base image of this version to prove it with"
        return warn(name, text, "register a bundle: toolcrib tools register DIR --config toolcrib.toml")
    return await prove(driver, image_id, own_kernel=name == RUNSC.name)


def _find_image(name: DriverName, settings: Settings) -> str | None:
    """Find the base image that this version makes; it is not built here."""
    if name not in RUNTIMES:
        return (
            open_folders(settings.sandboxes.image_dir).find_base() if settings.sandboxes.image_dir else None
        )
    engine = Engine(settings.engine.url)
    try:
        found = inspect(engine, image_name(BASE_REPOSITORY, content_key()))
        return None if found is None else found.id
    finally:
        engine.close()
