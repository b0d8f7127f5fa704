"""Serve one call of stubborn.v1.Stubborn: answer, or go on without end."""

from __future__ import annotations

import os

from stubborn.v1 import stubborn_pb2

from toolcrib.handler import Handler

handler = Handler()
calls = []

# Each of them is a process whose arguments name the call, so that whoever looks from outside can tell.
BEGINNING = """
import os, signal, struct, time
from toolcrib.handler.v1 import handler_pb2 as pb

body = pb.HandlerFrame(progress=pb.Progress(message="x" * 1000)).SerializeToString()
FRAME = struct.pack(">I", len(body)) + body

def cling():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)

def detach():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            cling()
        os._exit(0)

"""
WAYS = {
    "sleep": "time.sleep(600)",
    "cling": "detach()\ndetach()\ncling()",
    "stop": "detach()\nos.kill(os.getpid(), signal.SIGSTOP)",
    "flood": "while True: os.write(4, FRAME)",
    "flood_log": "while True: os.write(2, bytes(65536))",
    "flood_slowly": "while True:\n os.write(4, FRAME)\n time.sleep(0.02)",
    "double_fork": "detach()\nos._exit(0)",
}


@handler.tool("stubborn.v1.Stubborn/Answer", stubborn_pb2.AnswerRequest)
def answer(request, context):
    calls.append(context.call_id)
    return stubborn_pb2.AnswerResponse(uid=os.getuid(), calls=len(calls))


@handler.tool("stubborn.v1.Stubborn/GoOn", stubborn_pb2.GoOnRequest)
def go_on(request, context):
    for descriptor in (3, 4):
        os.set_inheritable(descriptor, True)
    program = BEGINNING + WAYS[request.how]
    os.execvp("python3", ["python3", "-c", program, request.mark])


if __name__ == "__main__":
    handler.run()
