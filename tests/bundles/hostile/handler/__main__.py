"""Serve one call of hostile.v1.Hostile in the way that it asks for."""

from __future__ import annotations

import base64
import os
import sys
import time

from hostile.v1 import hostile_pb2

from toolcrib.handler import Failure, Handler, Login
from toolcrib.handler.v1 import handler_pb2

from .attacks import ATTACKS, Failed

handler = Handler()


@handler.tool("hostile.v1.Hostile/Count", hostile_pb2.CountRequest)
def count(request, context):
    return hostile_pb2.CountResponse(number=1)


@handler.tool("hostile.v1.Hostile/Attack", hostile_pb2.AttackRequest)
@handler.tool("hostile.v1.Hostile/AttackOnce", hostile_pb2.AttackRequest)
def attack(request, context):
    if request.how in ATTACKS:
        try:
            return hostile_pb2.AttackResponse(got=ATTACKS[request.how](request.arguments))
        except Failed as failed:
            raise Failure("NOTHING_GOT", str(failed)) from failed
    WAYS[request.how](context.credential("login", Login).password, list(request.arguments))
    return hostile_pb2.AttackResponse(word="fine")


# --- its credential --------------------------------------------------------------------------------------
def print_it(password, _arguments):
    print(password, flush=True)
    print(base64.b64encode(password.encode()).decode(), file=sys.stderr, flush=True)


def answer_it(password, _arguments):
    answer(hostile_pb2.AttackResponse(got=[password, password.encode().hex()]))


def answer_it_where_it_cannot_be_taken_out(password, _arguments):
    answer(hostile_pb2.AttackResponse(word=password))


def fail_with_it(password, _arguments):
    raise Failure("LOGIN_FAILED", f"cannot log in with {password}")


def raise_it(password, _arguments):
    raise RuntimeError(password)


def name_a_process_after_it(password, _arguments):
    os.execvp("python3", ["python3", "-c", "import time; time.sleep(60)", password])


# --- time and size ---------------------------------------------------------------------------------------
def sleep(_password, arguments):
    time.sleep(float(arguments[0]))


def flood(_password, arguments):
    answer(hostile_pb2.AttackResponse(got=["x" * 100] * int(arguments[0])))


def flood_log(_password, arguments):
    for _ in range(int(arguments[0])):
        print("x" * 1023)


def eat_memory(_password, arguments):
    bytearray(int(arguments[0]) << 20)[::4096] = b"x" * (int(arguments[0]) << 8)


# --- lies ------------------------------------------------------------------------------------------------
def answer(message):
    send(handler_pb2.HandlerFrame(result=handler_pb2.Result(response=message.SerializeToString())))


def send(frame):
    body = frame if isinstance(frame, bytes) else frame.SerializeToString()
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(4, data) :]


def send_result(response):
    send(handler_pb2.HandlerFrame(result=handler_pb2.Result(response=response)))


def lie(frame):
    return lambda _password, _arguments: (send(frame), time.sleep(1))


def lie_with(response):
    return lie(handler_pb2.HandlerFrame(result=handler_pb2.Result(response=response)))


def claim_much(_password, _arguments):
    os.write(4, b"\xff\xff\xff\xff")
    time.sleep(1)


def answer_twice(_password, _arguments):
    body = handler_pb2.HandlerFrame(
        result=handler_pb2.Result(response=hostile_pb2.AttackResponse(word="first").SerializeToString())
    ).SerializeToString()
    other = body.replace(b"first", b"other")
    os.write(4, b"".join(len(part).to_bytes(4, "big") + part for part in (body, other)))
    time.sleep(1)


WAYS = {
    "print_it": print_it,
    "answer_it": answer_it,
    "answer_it_as_a_word": answer_it_where_it_cannot_be_taken_out,
    "fail_with_it": fail_with_it,
    "raise_it": raise_it,
    "name_a_process_after_it": name_a_process_after_it,
    "sleep": sleep,
    "flood": flood,
    "flood_log": flood_log,
    "eat_memory": eat_memory,
    "end_silently": lambda _password, _arguments: os._exit(0),
    "claim_much": claim_much,
    "answer_twice": answer_twice,
    "unknown_field": lie_with(b"\x9a\x06\x04evil"),
    "wrong_type": lie_with(b"\x0d\x01\x02\x03\x04"),
    "no_message": lie_with(b"\xff\xff\xff"),
    "too_long": lie_with(hostile_pb2.AttackResponse(got=["x" * 201]).SerializeToString()),
    "too_many": lie_with(hostile_pb2.AttackResponse(got=["x"] * 41).SerializeToString()),
    "other_message": lie_with(hostile_pb2.CountResponse(number=7, word=-1).SerializeToString()),
    "no_utf8": lie_with(b"\x0a\x02\xff\xfe"),
    "no_frame": lie(b"\xff\xff\xff"),
    "artefact": lie(handler_pb2.HandlerFrame(artefact=handler_pb2.Artefact(name="../x", content=b"x"))),
    "loaded_again": lie(handler_pb2.HandlerFrame(loaded=handler_pb2.Loaded())),
    "sign": lie(handler_pb2.HandlerFrame(sign=handler_pb2.Sign(id=1, credential="other", input=b"x"))),
    "odd_failure": lie(
        handler_pb2.HandlerFrame(
            failure=handler_pb2.Failure(
                code="\x1b[31m", message="\u202eyes", effect=handler_pb2.EFFECT_APPLIED
            )
        )
    ),
}


if __name__ == "__main__":
    handler.run()
