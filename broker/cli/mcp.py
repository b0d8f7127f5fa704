"""`toolcrib mcp`: an agent's tools for every host that speaks the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.connection import find_profile, profile_option
from broker.cli.output import REFUSED, UNREACHABLE, USAGE, CommandFailed
from toolcrib.client import ToolcribError, Unreachable
from toolcrib.mcp.options import OptionInvalid, ServeOptions, parse_address


@click.command()
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="How to serve.",
)
@click.option(
    "--listen", default="127.0.0.1:8765", show_default=True, metavar="HOST:PORT", help="Where to, for http."
)
@click.option(
    "--tools", multiple=True, metavar="GLOB", help="Offer only these, as in 'shop.v1.*'; repeatable."
)
@click.option("--workflow", default="", metavar="HANDLE", help="The workflow that all calls belong to.")
@click.option("--environment", default="", metavar="E", help="Default: the broker's first one.")
@click.option(
    "--timeout", default=120.0, metavar="S", show_default=True, help="Seconds that a call may take."
)
@click.option(
    "--http-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="HTTP clients' bearer token; made when missing. Default: mcp-token in the profile's folder.",
)
@click.option("--allow-remote", is_flag=True, help="Listen where other machines reach it, too.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Another Host of this server, behind a proxy; repeatable.",
)
@profile_option
def mcp(  # noqa: PLR0913 - one parameter an option
    *,
    transport: str,
    listen: str,
    tools: tuple[str, ...],
    workflow: str,
    environment: str,
    timeout: float,
    http_token_file: Path | None,
    allow_remote: bool,
    allow_host: tuple[str, ...],
    profile: str | None,
) -> None:
    """Serve an agent's tools to hosts that speak MCP.

    Over stdin and stdout, as a program that the host starts, or over HTTP, on loopback and with a bearer
    token. The server holds the agent's certificate: whoever may talk to it acts as the agent.
    """
    try:
        options = ServeOptions(
            profile=find_profile(profile),
            tools=tools,
            workflow=workflow,
            environment=environment,
            timeout_seconds=timeout,
            http=parse_address(listen) if transport == "http" else None,
            http_token_file=http_token_file,
            allow_remote=allow_remote,
            allow_hosts=allow_host,
        )
        options.check()
        from toolcrib.mcp.serving import run  # noqa: PLC0415 - what it needs is an extra

        run(options)
    except ImportError as error:  # it is missing, or an older version of it
        raise CommandFailed(f"needs a package ({error}): pip install 'toolcrib[mcp]'", USAGE) from error
    except OptionInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    except Unreachable as error:
        raise CommandFailed(f"the broker cannot be reached: {error.message}", UNREACHABLE) from error
    except ToolcribError as error:
        raise CommandFailed(str(error), REFUSED, details={"reason": error.reason}) from error
