"""Serve one call of mischief.v1.Mischief in the way that it asks for."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

from mischief.v1 import mischief_pb2

from toolcrib.handler import Failure, Handler

handler = Handler()


FILES = {
    "give": lambda _password: b"0123456789abcdef" * 100_000,
    "give_secret": lambda password: b"\xff\x00" + base64.b64encode(f"x{password}".encode()),
}


def give(context, content):
    Path(context.artefact_folder, "report.bin").write_bytes(content)
    context.give_artefact("report.bin", "application/x-report")


@handler.tool("mischief.v1.Mischief/Read", mischief_pb2.ReadRequest)
def read(request, context):
    password = context.credentials["effects"].password
    how = request.how
    if how == "sleep":
        time.sleep(request.seconds)
    if how == "crash":
        os._exit(3)
    if how == "fail":
        raise Failure("SHELF_EMPTY", "Nothing is on the shelf.", effect="none")
    if how == "fail_with_secret":
        raise Failure(
            "LOGIN_FAILED", f"cannot log in as {context.credentials['effects'].username} {password}"
        )
    if how in FILES:
        give(context, FILES[how](password))
    if how == "log":
        print("to stdout\x1b[31m", flush=True)
        print(password, flush=True)
    texts = {
        "flood": "x" * 10_000_000,
        "too_long": "x" * 101,
        "secret": password,
        "secret_base64": base64.b64encode(password.encode()).decode(),
        "secret_hex": password.encode().hex(),
    }
    token = password if how == "secret_needed" else ""
    return mischief_pb2.ReadResponse(text=texts.get(how, "fine"), token=token)


NEW_EFFECT = "INSERT INTO effects (idempotency_key) VALUES ($1) RETURNING number"
EFFECT = "SELECT number FROM effects WHERE idempotency_key = $1 ORDER BY number LIMIT 1"


@handler.tool("mischief.v1.Mischief/Write", mischief_pb2.WriteRequest)
@handler.tool("mischief.v1.Mischief/WriteProbed", mischief_pb2.WriteRequest)
async def write(request, context):
    if request.how == "crash_before" and context.attempt == 1:
        os._exit(3)
    return await add_effect(request, context)


@handler.tool("mischief.v1.Mischief/WriteOnce", mischief_pb2.WriteRequest)
async def write_once(request, context):
    if request.how == "crash_before" and context.attempt == 1:
        os._exit(3)
    how = "fine" if context.attempt > 1 else request.how
    connection = await connect(context)
    number = await connection.fetchval(EFFECT, context.idempotency_key)
    if number is not None:
        return mischief_pb2.WriteResponse(effect_number=number)
    return await add_effect(mischief_pb2.WriteRequest(how=how, seconds=request.seconds), context)


@handler.tool("mischief.v1.Mischief/LookupEffect", mischief_pb2.LookupEffectRequest)
async def lookup_effect(request, context):
    connection = await connect(context)
    number = await connection.fetchval(EFFECT, request.idempotency_key)
    if number is None:
        return mischief_pb2.LookupEffectResponse(happened=False)
    effect = mischief_pb2.WriteResponse(effect_number=number)
    return mischief_pb2.LookupEffectResponse(happened=True, effect=effect)


async def add_effect(request, context):
    how = request.how
    if how == "fail":
        raise Failure("SHELF_EMPTY", "Nothing is on the shelf.", effect="none")
    if how == "sleep_first":
        time.sleep(request.seconds)
    connection = await connect(context)
    number = await connection.fetchval(NEW_EFFECT, context.idempotency_key)
    if how == "crash_after":
        os._exit(3)
    if how == "sleep_after":
        time.sleep(request.seconds)
    if how == "unsure":
        raise Failure("LINE_CUT", "The target did not answer.", effect="unknown")
    if how == "too_much":
        return mischief_pb2.ReadResponse(text="no number at all")
    return mischief_pb2.WriteResponse(effect_number=number)


@handler.tool("mischief.v1.Mischief/Cling", mischief_pb2.ClingRequest)
async def cling(request, context):
    connection = await connect(context)
    statements = {
        "transaction": "BEGIN; INSERT INTO effects (idempotency_key) VALUES ('late')",
        "temp_table": "CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1)",
        "large_object": "SELECT lo_from_bytea(0, 'mine')",
        "default_privileges": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO public",
    }
    await connection.execute(statements[request.how])
    pid = os.fork()
    if pid == 0:  # a child that keeps the connection's socket after the handler ended
        os.setsid()
        time.sleep(600)
    return mischief_pb2.ClingResponse(clung=True)


async def connect(context):
    import asyncpg

    target = context.targets["orders-db"]
    login = context.credentials["effects"]
    return await asyncpg.connect(
        host=target.socket_dir,
        port=int(target.settings.get("port", 5432)),
        user=login.username,
        password=login.password,
        database=target.settings["database"],
        ssl=False,
    )


if __name__ == "__main__":
    handler.run()
