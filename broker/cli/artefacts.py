"""`toolcrib calls artefact`: fetch a file that a call gave back."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import REFUSED, USAGE, CommandFailed, to_printable
from toolcrib.v1 import broker_pb2, broker_pb2_grpc


@click.command()
@click.argument("call_id", metavar="ID")
@click.argument("name", metavar="NAME")
@click.option(
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write it. Default: NAME, in this folder.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@profile_option
def artefact(call_id: str, name: str, file: Path | None, force: bool, profile: str | None) -> None:
    """Write the file NAME, which the call ID gave back, for the agent that made the call.

    What is in it comes from the tool: it was searched for the call's secrets, and for nothing else.
    """
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise CommandFailed(f'"{name}" is no plain file name; `toolcrib calls show` lists them', USAGE)
    place = file or Path(name)
    if place.is_dir() or (not force and (place.exists() or place.is_symlink())):
        raise _is_there(place)
    with connect(profile) as channel:
        content, last = _read(broker_pb2_grpc.BrokerStub(channel), call_id, name)
    if len(content) != last.size_bytes or hashlib.sha256(content).hexdigest() != last.sha256:
        raise CommandFailed(f"{name}: what came is not the whole file; ask again", REFUSED)
    _write(place, content, force=force)
    click.echo(to_printable(f"wrote {place}: {last.size_bytes} bytes, {last.media_type}"))


def _read(stub: Any, call_id: str, name: str) -> tuple[bytes, Any]:
    """Read a file part by part; give it with the last answer."""
    content, request = b"", broker_pb2.GetArtefactRequest(call_id=call_id, name=name)
    while True:
        answer = ask(stub.GetArtefact, request)
        content += answer.content
        if answer.next_offset <= request.offset:
            return content, answer
        request.offset = answer.next_offset


def _write(place: Path, content: bytes, *, force: bool) -> None:
    """Write a file that is not there; or, with force, put it in the place of one that is.

    Raises:
        CommandFailed: It cannot be written, or is there by now.
    """
    try:
        if not force:
            with place.open("xb") as file:
                file.write(content)
            return
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as new:
            new.write(content)
        Path(new.name).replace(place)  # a link in its place is replaced, not followed
    except FileExistsError as error:
        raise _is_there(place) from error
    except OSError as error:
        raise CommandFailed(f"{place}: cannot be written ({error.strerror})", USAGE) from error


def _is_there(place: Path) -> CommandFailed:
    return CommandFailed(f"{place}: is there already; choose another --output, or --force", USAGE)
