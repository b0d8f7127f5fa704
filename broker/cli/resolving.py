"""`toolcrib calls resolve`: a person says what became of a write that is in doubt."""

from __future__ import annotations

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import USAGE, CommandFailed, output_option, show_one
from toolcrib.v1 import broker_pb2, operations_pb2, operations_pb2_grpc


@click.command()
@click.argument("call_id", metavar="ID")
@click.option("--happened/--not", "happened", default=None, help="What you found at the target.")
@click.option("--reason", required=True, metavar="TEXT", help="How you know; for the record and the audit.")
@click.option(
    "--result", default="", metavar="JSON", help="The tool's answer, where it happened and you know it."
)
@profile_option
@output_option
def resolve(
    call_id: str, happened: bool | None, reason: str, result: str, profile: str | None, form: str
) -> None:
    """Say what became of the write ID, which is IN_DOUBT or NEEDS_HUMAN.

    Look at the target first. --happened: its key gives this answer from now on. --not: the key is free, and
    the next call with it runs. For operators.
    """
    if happened is None:
        raise CommandFailed("say what you found at the target: --happened or --not", USAGE)
    request = operations_pb2.ResolveCallRequest(
        call_id=call_id, happened=happened, result_json=result, reason=reason
    )
    with connect(profile) as channel:
        call = ask(operations_pb2_grpc.OperationsStub(channel).ResolveCall, request).call
    state = broker_pb2.CallState.Name(call.state)
    show_one({"call": call.call_id, "state": state, "message": call.message}, form)
