"""Which drivers run the sandboxes, as the settings say; what is weaker is said loudly or refused."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from broker.settings import DriverName, Settings, SettingsInvalid
from broker.store.records import Epoch
from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.fleet import Fleet
from sandboxes.folders import Folders
from sandboxes.pool_size import PoolTerms, half_of_host_mib
from sandboxes.runtimes import RUNTIMES
from sandboxes.sandbox import Driver

log = logging.getLogger(__name__)

WEAK = frozenset({"bubblewrap"})
"""Drivers for development: they share more of the host's kernel and keep fewer promises than containers."""

DriverFactory = Callable[[Settings, Epoch], Driver]


def make_fleet(settings: Settings, epoch: Epoch, factory: DriverFactory | None = None) -> Fleet:
    """Make the drivers that the settings name, one of each.

    Args:
        settings: The operator's.
        epoch: Of this broker.
        factory: Makes what runs the sandboxes of every class instead; for tests.

    Raises:
        SettingsInvalid: A driver is weak and not allowed, or cannot be used here.
    """
    classes = settings.sandboxes.classes
    if factory is not None:
        return Fleet(dict.fromkeys(classes, factory(settings, epoch)))
    _check_weak(settings)
    made = {name: make_driver(name, settings, epoch) for name in dict.fromkeys(classes.values())}
    return Fleet({isolation: made[name] for isolation, name in classes.items()})


def make_driver(name: DriverName, settings: Settings, epoch: Epoch) -> Driver:
    """Make one driver.

    Raises:
        SettingsInvalid: It is not part of this installation.
    """
    if name in RUNTIMES:
        engine = Engine(settings.engine.url)
        doors = settings.run_dir / f"{epoch.installation}-{epoch.number}" / f"doors-{name}"
        return DockerDriver(engine, epoch.installation, epoch.number, runtime=RUNTIMES[name], doors=doors)
    try:  # only where it is asked for: nothing of it is needed elsewhere
        driver = importlib.import_module("sandboxes.bubblewrap_driver").BubblewrapDriver
        compiler = importlib.import_module("sandboxes.bubblewrap_compiler").compile_folder
    except ImportError as error:
        raise SettingsInvalid(f"sandboxes.classes: the driver {name} cannot be used: {error}") from error
    images = settings.sandboxes.image_dir
    if images is None:
        raise SettingsInvalid(f"sandboxes.image_dir: is required for {name}: the folder that has its images")
    made: Driver = driver(Folders(images, compiler), epoch.installation, epoch.number)
    return made


def pool_terms(settings: Settings) -> PoolTerms:
    """Say what the pool may do; where no memory is set, half of the host's."""
    pool = settings.sandboxes.pool
    return PoolTerms(
        least_idle=pool.least_idle,
        max_idle=pool.max_idle,
        idle_seconds=pool.idle_seconds,
        makers=pool.makers,
        max_wait_seconds=pool.max_wait_seconds,
        memory_mib=settings.sandboxes.memory_mib or half_of_host_mib(),
    )


def _check_weak(settings: Settings) -> None:
    for isolation, name in settings.sandboxes.classes.items():
        if name not in WEAK:
            continue
        if not (settings.sandboxes.allow_weak or settings.development):
            raise SettingsInvalid(
                f"sandboxes.classes.{isolation}: {name} is for development: it is weaker than a container. "
                "Use docker-runc or docker-runsc, or set sandboxes.allow_weak = true if all tools are yours"
            )
        cause = f"{name} runs the class {isolation}: for development"
        log.warning("weaker isolation", extra={"cause": cause})
