"""The handlers of chaos.v1.Chaos: each says one line of JSON to its target and reads one back."""

from __future__ import annotations

import json
import os
import socket
import time

from chaos.v1 import chaos_pb2

from toolcrib.handler import Failure, Handler

handler = Handler()


def serve_write(target):
    def write(request, context):
        if request.dawdle_millis:
            time.sleep(request.dawdle_millis / 1000)
        answer = ask(
            context,
            target,
            {
                "op": "write",
                "key": context.idempotency_key,
                "mark": request.mark,
                "call_id": context.call_id,
                "attempt": context.attempt,
            },
            straight=request.dawdle_millis > 0,
        )
        return chaos_pb2.WriteResponse(effect_number=answer["number"])

    return write


def serve_lookup(target):
    def lookup(request, context):
        answer = ask(context, target, {"op": "probe", "key": request.idempotency_key})
        response = chaos_pb2.LookupResponse(happened=answer["number"] > 0)
        if response.happened:
            response.result.effect_number = answer["number"]
        return response

    return lookup


def ask(context, name, question, straight=False):
    """Ask over the way out of this call, or past it where the sandbox is a plain process."""
    try:
        line = connect(context.targets[name], straight)
    except OSError as error:
        text = f"the target cannot be reached: {type(error).__name__}"
        raise Failure("TARGET_UNREACHABLE", text, retryable=True, effect="none") from error
    try:
        with line, line.makefile("rb") as said:
            line.sendall(b"EHLO " + json.dumps(question).encode() + b"\n")
            return json.loads(said.readline())
    except (OSError, ValueError) as error:
        text = f"the target gave no answer: {type(error).__name__}"
        raise Failure("TARGET_GONE", text, effect="unknown") from error


def connect(target, straight):
    if straight and not target.socket_path.startswith("/run/toolcrib/"):
        host, _, port = target.settings["straight"].rpartition(":")
        line = socket.socket(socket.AF_INET)
        address = (host, int(port))
    else:
        line = socket.socket(socket.AF_UNIX)
        folder, _, address = target.socket_path.rpartition("/")
        os.chdir(folder)  # where the sandbox is a plain process the whole path is too long for a socket's
    line.settimeout(10)
    line.connect(address)
    return line


for _name in ("Dedupes", "Probed", "Blind", "Late"):
    handler.tool(f"chaos.v1.Chaos/Write{_name}", chaos_pb2.WriteRequest)(serve_write(_name.lower()))
for _name in ("Probed", "Late"):
    handler.tool(f"chaos.v1.Chaos/Lookup{_name}", chaos_pb2.LookupRequest)(serve_lookup(_name.lower()))
