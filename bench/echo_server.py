"""The floor's server: one grpc.aio unary method that answers the bytes that it gets, and nothing else.

It prints its port and serves until its standard input ends. With a folder as argument it asks for client
certificates: ca.pem, server.pem and server.key are in it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc

METHOD = "/bench.Echo/Echo"


async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return request


async def serve(folder: Path | None) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    if folder is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
        ca = (folder / "ca.pem").read_bytes()
        credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
