"""`python -m toolcrib.mcp`: the MCP server for who has installed only `toolcrib[mcp]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolcrib.client import ToolcribError, Unreachable
from toolcrib.mcp.options import OptionInvalid, ServeOptions, parse_address

REFUSED, USAGE, UNREACHABLE = 1, 2, 4


def read_options(arguments: Sequence[str] | None = None) -> ServeOptions:
    """Read the command line.

    Raises:
        OptionInvalid: What it says cannot be served.
    """
    parser = argparse.ArgumentParser(
        prog="python -m toolcrib.mcp", description="Serve an agent's tools over MCP."
    )
    add = parser.add_argument
    add(
        "--profile", type=Path, required=True, metavar="DIR", help="folder with profile.toml and certificates"
    )
    add("--transport", choices=("stdio", "http"), default="stdio")
    add("--listen", default="127.0.0.1:8765", metavar="HOST:PORT", help="for http")
    add("--tools", action="append", default=[], metavar="GLOB", help="offer only these, as in 'shop.v1.*'")
    add("--workflow", default="", metavar="HANDLE", help="the workflow that all calls belong to")
    add("--environment", default="", metavar="E")
    add("--timeout", type=float, default=120.0, metavar="S", help="seconds that a call may take")
    add("--http-token-file", type=Path, metavar="FILE", help="the HTTP clients' bearer token")
    add("--allow-remote", action="store_true", help="listen where other machines reach it")
    add("--allow-host", action="append", default=[], metavar="NAME", help="another `Host` of this server")
    told = parser.parse_args(arguments)
    return ServeOptions(
        profile=told.profile,
        tools=tuple(told.tools),
        workflow=told.workflow,
        environment=told.environment,
        timeout_seconds=told.timeout,
        http=parse_address(told.listen) if told.transport == "http" else None,
        http_token_file=told.http_token_file,
        allow_remote=told.allow_remote,
        allow_hosts=tuple(told.allow_host),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stdin closes or a signal comes; 0 then."""
    try:
        options = read_options(arguments)
        options.check()
        from toolcrib.mcp.serving import run  # noqa: PLC0415 - what it needs is an extra

        run(options)
    except ImportError as error:  # it is missing, or an older version of it
        return _fail(f"needs a package ({error}): pip install 'toolcrib[mcp]'", USAGE)
    except OptionInvalid as error:
        return _fail(str(error), USAGE)
    except Unreachable as error:
        return _fail(f"the broker cannot be reached: {error.message}", UNREACHABLE)
    except ToolcribError as error:
        return _fail(str(error), REFUSED)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
