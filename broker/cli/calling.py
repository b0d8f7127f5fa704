"""`toolcrib call`: one call of a tool with JSON, as an LLM framework would make it."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import click
import grpc

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import REFUSED, USAGE, CommandFailed, output_option, progress, to_json
from toolcrib.v1 import broker_pb2, broker_pb2_grpc


@click.command()
@click.argument("tool")
@click.argument("arguments", metavar="JSON|@FILE|-")
@click.option("--key", default="", metavar="K", help="Idempotency key: the same for each retry.")
@click.option("--new-key", is_flag=True, help="Make a key and print it on stderr before the call.")
@click.option("--environment", default="", metavar="E", help="Default: the broker's first one.")
@click.option("--tool-version", default="", metavar="V", help="A version or an alias. Default: stable.")
@click.option("--workflow", default="", metavar="HANDLE", help="What `toolcrib workflows open` gave.")
@click.option("--timeout", default=60.0, metavar="S", show_default=True, help="Seconds to wait at most.")
@profile_option
@output_option
def call(  # noqa: PLR0913 - one parameter an option
    *,
    tool: str,
    arguments: str,
    key: str,
    new_key: bool,
    environment: str,
    tool_version: str,
    workflow: str,
    timeout: float,
    profile: str | None,
    form: str,
) -> None:
    """Call TOOL with a JSON object, and print its result.

    The result goes to stdout; the call's id, labels and whether it is replayed to stderr. A DRAFT or a WRITE
    needs a key: --new-key makes one, --key repeats it.

    \b
      toolcrib call shop.v1.Orders/LookupOrder '{"order_id": "A-1042"}'
    """  # noqa: D301 - click's own mark for a block that is not to be wrapped
    if key and new_key:
        raise CommandFailed("give --key to repeat a call or --new-key for another one, not both", USAGE)
    request = broker_pb2.InvokeRequest(
        tool=tool,
        arguments_json=read_json(arguments),
        idempotency_key=uuid.uuid4().hex if new_key else key,
        environment=environment,
        tool_version=tool_version,
        workflow=workflow,
    )
    if new_key:
        click.echo(f"key {request.idempotency_key}", err=True)
    with connect(profile) as channel, progress(f"calling {tool}"):
        answer = _invoke(channel, request, timeout)
    _show(answer, request.idempotency_key, form)


def read_json(argument: str) -> str:
    """Take JSON from the line, from @FILE, or from stdin ("-"). The broker checks it against the contract.

    Raises:
        CommandFailed: The file cannot be read, or the text is no JSON object.
    """
    where = argument[1:] if argument.startswith("@") else "stdin" if argument == "-" else "the arguments"
    try:
        text = argument
        if argument == "-":
            text = sys.stdin.read()
        elif argument.startswith("@"):
            text = Path(where).read_text(encoding="utf-8")
        text.encode()  # what the shell gave may be no text at all
        is_object = isinstance(json.loads(text), dict)
    except OSError as error:
        raise CommandFailed(f"{where}: cannot be read ({error.strerror})", USAGE) from error
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{where}: is no JSON: {error}", USAGE) from error
    if not is_object:
        raise CommandFailed(f'{where}: must be a JSON object, for example {{"order_id": "A-1042"}}', USAGE)
    return text


def _invoke(
    channel: grpc.Channel, request: broker_pb2.InvokeRequest, timeout: float
) -> broker_pb2.InvokeResponse:
    try:
        answer: broker_pb2.InvokeResponse = ask(broker_pb2_grpc.BrokerStub(channel).Invoke, request, timeout)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not error.trailing_metadata():
            again = f"ask again with --key {request.idempotency_key}" if request.idempotency_key else ""
            text = f"no answer within {timeout:g} s; a write may go on all the same; {again}".rstrip("; ")
            details = {"code": "DEADLINE_EXCEEDED", "key": request.idempotency_key}
            raise CommandFailed(text, REFUSED, details=details) from error
        raise
    return answer


def _show(answer: broker_pb2.InvokeResponse, key: str, form: str) -> None:
    result = json.loads(answer.result_json)
    if form == "json":
        said = {"call_id": answer.call_id, "replayed": answer.replayed, "labels": list(answer.labels)}
        click.echo(to_json({**said, "key": key, "result": result}))
        return
    click.echo(to_json(result))
    click.echo(f"call {answer.call_id}{' · replayed' if answer.replayed else ''}", err=True)
    if answer.labels:
        click.echo(f"labels {', '.join(answer.labels)}", err=True)
