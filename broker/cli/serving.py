"""`toolcrib serve` and `toolcrib dev`: the commands that run a broker until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click
import uvloop

from broker.app import Broker
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed
from broker.dev import DevOptions, DevStack
from broker.logs import log_as_json
from broker.settings import SettingsInvalid, read_settings
from credentials.errors import CredentialsError
from sandboxes.egress.process import EgressError
from sandboxes.engine import EngineMissing
from sandboxes.outcome import SandboxError

DEV_CLIENTS = (("refund-desk", "agent"), ("olga", "operator"), ("rob", "reviewer"), ("ada", "author"))


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="toolcrib.toml")
def serve(config: Path) -> None:
    """Run a broker in production.

    Refuses to start on an unknown key, a development configuration, an rpc without an access rule, or a part
    that is missing. SIGTERM drains: no new calls, running ones end or are in doubt by the drain deadline.
    """
    log_as_json(sys.stderr)
    try:
        settings = read_settings(config)
        if settings.development:
            raise SettingsInvalid(f"{config}: development = true: `serve` does not run what `dev` made")
        uvloop.run(_serve(Broker(settings)))
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    except (CredentialsError, SandboxError, EgressError, EngineMissing) as error:
        raise CommandFailed(f"cannot start: {error}", UNHEALTHY) from error


async def _serve(broker: Broker) -> None:
    stop = _stop_signal()
    async with broker:
        click.echo(f"listening on {broker.address}", err=True)
        await stop.wait()
        click.echo("draining", err=True)


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path(".toolcrib/dev"),
    show_default=True,
    help="Made anew at each start.",
)
@click.option(
    "--listen", default="127.0.0.1:7443", show_default=True, help="host:port; port 0 takes a free one."
)
@click.option("--metrics", default="127.0.0.1:9464", show_default=True, help="host:port of the metrics page.")
def dev(state_dir: Path, listen: str, metrics: str) -> None:
    """Run everything on loopback: OpenBao, PostgreSQL, engine, broker, sample bundles.

    Prints what to paste into another terminal. No grant is applied: apply one, or every call is refused.
    """
    options = DevOptions(
        listen=listen, metrics_listen=metrics, say=lambda text: click.echo(f"· {text}", err=True)
    )
    stack = DevStack(state_dir, state_dir.parent / "cache", options=options)
    try:
        uvloop.run(_dev(stack))
    except (CredentialsError, SandboxError, EgressError, EngineMissing, SettingsInvalid) as error:
        raise CommandFailed(f"cannot start: {error}", UNHEALTHY) from error


async def _dev(stack: DevStack) -> None:
    stop = _stop_signal()
    async with stack:
        folders = {}
        for name, role in DEV_CLIENTS:
            folders[role] = await asyncio.to_thread(stack.profile, name, role)
        click.echo(
            _what_to_paste(stack, folders["agent"].cert_path.parent, folders["reviewer"].cert_path.parent)
        )
        await stop.wait()
        click.echo("stopping", err=True)


def _what_to_paste(stack: DevStack, agent: Path, reviewer: Path) -> str:
    return f"""
Toolcrib listens on {stack.address}. In another terminal:

  export TOOLCRIB_PROFILE={agent}
  toolcrib tools list
  toolcrib grants apply deploy/demo/grants/shop.cedar \\
    --profile {reviewer}
  toolcrib call shop.v1.Orders/LookupOrder '{{"order_id": "A-1042"}}'
  toolcrib calls list

Ctrl-C takes everything away again."""


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
