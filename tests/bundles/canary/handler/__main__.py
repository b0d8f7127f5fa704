"""Serve one call of canary.v1.Canary: tell the secrets of the call on the channel that it names."""

from __future__ import annotations

import os
import sys
import time

from canary.v1 import canary_pb2

from toolcrib.handler import Handler, KeyValues, Login
from toolcrib.handler.v1 import handler_pb2

handler = Handler()


@handler.tool("canary.v1.Canary/Sing", canary_pb2.SingRequest)
@handler.tool("canary.v1.Canary/SingOnce", canary_pb2.SingRequest)
def sing(request, context):
    scope = {}
    exec(request.disguises, scope)
    canaries = context.credential("canaries", KeyValues).fields
    secrets = [canaries[name] for name in sorted(canaries)]
    secrets.append(context.credential("login", Login).password)
    if request.number >= 0:
        secrets = [secrets[request.number]]
    told = [disguise(secret) for secret in secrets for disguise in scope["DISGUISES"].values()]
    CHANNELS[request.channel](told, context)
    if request.channel != "result":
        return canary_pb2.SingResponse(innocent="nothing")
    return canary_pb2.SingResponse(
        texts=told, data="\n".join(told).encode(), notes=dict.fromkeys(told, "a"), innocent="kept"
    )


def to_stdout(told, _context):
    print("\n".join(told), flush=True)


def to_stderr(told, _context):
    print("\n".join(told), file=sys.stderr, flush=True)


def to_error(told, context):
    failure = handler_pb2.Failure(code=told[0], message="\n".join(told), effect=handler_pb2.EFFECT_NONE)
    context._frames.write(handler_pb2.HandlerFrame(failure=failure))
    time.sleep(5)


def to_crash(told, _context):
    raise RuntimeError("\n".join(told))


def to_artefact(told, context):
    artefact = handler_pb2.Artefact(name=told[0], content="\n".join(told).encode())
    context._frames.write(handler_pb2.HandlerFrame(artefact=artefact))
    time.sleep(5)


def to_progress(told, context):
    for text in told[:200]:
        context.progress(text)


def to_exit_code(told, _context):
    os._exit(ord(told[0][0]))


def to_signal(told, _context):
    # Signals that end a program at once; SIGINT would make Python write about it.
    signals = (4, 6, 7, 8, 9, 11, 15)
    os.kill(os.getpid(), signals[ord(told[0][0]) % len(signals)])
    time.sleep(5)


def to_nobody(_told, _context):
    time.sleep(3)


CHANNELS = {
    "result": lambda _told, _context: None,
    "stdout": to_stdout,
    "stderr": to_stderr,
    "error text": to_error,
    "crash": to_crash,
    "artefact": to_artefact,
    "progress": to_progress,
    "exit code": to_exit_code,
    "signal": to_signal,
    "nobody": to_nobody,
}


if __name__ == "__main__":
    handler.run()
