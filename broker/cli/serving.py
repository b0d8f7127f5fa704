"""`toolcrib serve` and `toolcrib dev`: the commands that run a broker until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import uvloop

from broker.api.door import AccessRuleMissing
from broker.app import Broker
from broker.cli.connection import PROFILE_VARIABLE
from broker.cli.output import INTERRUPTED, UNHEALTHY, USAGE, CommandFailed
from broker.dev import ALL_BUNDLES, DevOptions, DevStack
from broker.heap import settle_heap
from broker.logs import log_as_json
from broker.settings import SettingsInvalid, environment_variable, read_settings
from broker.store.records import StoreError
from credentials.errors import CredentialsError
from credentials.hardened import refuse_dumps
from sandboxes.egress.process import EgressError
from sandboxes.outcome import SandboxError

DEV_CLIENTS = (
    ("refund-desk", "agent"),
    ("olga", "operator"),
    ("rob", "reviewer"),
    ("ada", "author"),
    ("front-office", "orchestrator"),
)
WEAKER = """\
WARNING: without Docker, bubblewrap runs the sandboxes. They are WEAKER than
containers: less lies between a tool and this host, and the broker itself sets
them up, as root. Only for development, with tools of your own
(docs/runtimes.md)."""


class StoppedEarly(Exception):
    """A signal came before everything was started."""


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Its toolcrib.toml."
)
def serve(config: Path) -> None:
    """Run a broker in production.

    Refuses to start on an unknown key, a development configuration, an rpc without an access rule, or a part
    that is missing. SIGTERM and SIGINT drain: no new calls, running ones end or are in doubt by the drain
    deadline. Logs JSON on stderr.
    """
    log_as_json(sys.stderr)
    with _start_errors():
        refuse_dumps()  # before anything is read that must not be seen
        settings = read_settings(config)
        if settings.development:
            raise SettingsInvalid(
                f"{config}: development = true: `serve` does not run what `dev` made; write a configuration "
                "of your own as docs/operating.md has it"
            )
        uvloop.run(_serve(Broker(settings)))


async def _serve(broker: Broker) -> None:
    stop = _stop_signal()
    async with broker:
        settle_heap()
        click.echo(f"listening on {broker.address}", err=True)
        await stop.wait()
        click.echo(f"draining; calls have {broker.settings.server.drain_seconds:g} s to end", err=True)
    click.echo("stopped", err=True)


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".toolcrib/dev"),
    show_default=True,
    help="Made anew at each start.",
)
@click.option(
    "--listen", default="127.0.0.1:7443", show_default=True, help="host:port; port 0 takes a free one."
)
@click.option(
    "--engine",
    "engine_url",
    metavar="URL",
    help="An engine (or DOCKER_HOST). Default: the usual, or its own.",
)
@click.option("--without-docker", is_flag=True, help="Sandboxes by bubblewrap: weaker, for development.")
@click.option("--metrics", default="127.0.0.1:9464", show_default=True, help="host:port of the metrics page.")
def dev(state_dir: Path, listen: str, engine_url: str | None, without_docker: bool, metrics: str) -> None:
    """Run everything on loopback: OpenBao, PostgreSQL, engine, broker, sample bundles.

    Prints what to paste into another terminal. No grant is applied: apply one, or every call is refused.
    Ctrl-C takes everything away again.
    """
    if without_docker and engine_url:
        raise CommandFailed("--engine and --without-docker: say one of them", USAGE)
    engine_url = None if without_docker else engine_url or environment_variable("DOCKER_HOST") or None
    options = DevOptions(
        bundles=ALL_BUNDLES,
        listen=listen,
        metrics_listen=metrics,
        engine_url=engine_url,
        without_docker=without_docker,
    )
    if without_docker:
        click.echo(WEAKER, err=True)
    try:
        with _start_errors():
            refuse_dumps()
            uvloop.run(_dev(state_dir, options))
    except StoppedEarly:
        raise CommandFailed("interrupted; what was started is gone again", INTERRUPTED) from None


async def _dev(state_dir: Path, options: DevOptions) -> None:
    stop = _stop_signal()

    def say(step: str) -> None:
        """Tell the step that begins. Between two steps is where a start can be given up cleanly."""
        if stop.is_set():
            raise StoppedEarly
        click.echo(f"· {step}", err=True)

    options = replace(options, say=say)
    async with DevStack(state_dir, state_dir.parent / "cache", options=options) as stack:
        folders = {}
        for name, role in DEV_CLIENTS:
            profile = await asyncio.to_thread(stack.profile, name, role)
            folders[role] = profile.cert_path.parent
        click.echo(_what_to_paste(stack, folders))
        await stop.wait()
        click.echo("stopping", err=True)


def _what_to_paste(stack: DevStack, folders: dict[str, Path]) -> str:
    config = stack.state_dir / "toolcrib.toml"
    place = stack.image_place
    images = f"--image-dir {place}" if isinstance(place, Path) else f"--engine {place.base_url}"
    weaker = f"\n\n{WEAKER}" if stack.options.without_docker else ""
    return f"""
Toolcrib listens on {stack.address}. In another terminal:

  export {PROFILE_VARIABLE}={folders["agent"]}
  toolcrib tools list
  toolcrib grants apply {stack.grants_dir} \\
    --profile {folders["reviewer"]}
  toolcrib call shop.v1.Orders/LookupOrder '{{"order_id": "A-1042"}}'
  toolcrib call web.v1.Web/FetchPage '{{"url": "http://pages.example/offers.html"}}'
  toolcrib calls list

  toolcrib tools register tools/bundles/shop \\
    {images} \\
    --profile {folders["author"]}
  toolcrib audit verify --config {config}
  toolcrib doctor --config {config}

Ctrl-C takes everything away again.{weaker}"""


@contextmanager
def _start_errors() -> Iterator[None]:
    """Say what cannot be started, with the exit code of its kind."""
    try:
        yield
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    except (CredentialsError, SandboxError, EgressError, StoreError, AccessRuleMissing, OSError) as error:
        raise CommandFailed(f"cannot start: {error}", UNHEALTHY) from error


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
