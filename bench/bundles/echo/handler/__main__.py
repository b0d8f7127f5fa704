"""Serve echo.v1.Echo."""

from __future__ import annotations

from echo.v1 import echo_pb2

from toolcrib.handler import Handler

handler = Handler()


@handler.tool("echo.v1.Echo/Say", echo_pb2.SayRequest)
def say(request, context):
    return echo_pb2.SayResponse(text=request.text)


if __name__ == "__main__":
    handler.run()
