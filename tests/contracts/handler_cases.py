"""A handler with every way to end, run as it stands here in a test's process and in sandboxes."""

from __future__ import annotations

from pathlib import Path

from toolcrib.handler import Context, Effect, Failure, Handler, Login
from toolcrib.handler.v1 import handler_pb2

METHOD = "test.v1.Cases/Run"
HANDLER = Path(__file__).read_bytes()

_EFFECTS: dict[str, Effect] = {"none": "none", "applied": "applied", "unknown": "unknown"}

handler = Handler()


@handler.tool(METHOD, handler_pb2.Progress)
def run(request: handler_pb2.Progress, context: Context) -> handler_pb2.Progress:
    case = request.message
    if case.startswith("failure "):
        raise Failure("TOO_LATE", "the shop is closed", retryable=True, effect=_EFFECTS[case.split()[1]])
    return _CASES[case](context)


def _answer(context: Context) -> handler_pb2.Progress:
    context.progress("half", 50)
    return handler_pb2.Progress(message="done", percent=100)


def _raise(context: Context) -> handler_pb2.Progress:
    raise KeyError("password=hunter2")


def _give_file(context: Context) -> handler_pb2.Progress:
    with open(f"{context.artefact_folder}/report.csv", "w") as file:  # noqa: PTH123
        file.write("a,b\n")
    context.give_artefact("report.csv", "text/csv")
    return handler_pb2.Progress(message="see the file")


def _wait_for_cancel(context: Context) -> handler_pb2.Progress:
    import time

    while not context.cancelled:
        time.sleep(0.01)
    return handler_pb2.Progress(message=f"cancelled: {context.cancel_reason}")


def _answer_otherwise(context: Context) -> object:
    return handler_pb2.Cancel(reason="the bytes of this are a Progress as well")


def _say_login(context: Context) -> handler_pb2.Progress:
    login = context.credential("orders", Login)
    return handler_pb2.Progress(message=f"{login.username} under {context.idempotency_key}")


_CASES = {
    "result": _answer,
    "exception": _raise,
    "artefact": _give_file,
    "cancel": _wait_for_cancel,
    "other message": _answer_otherwise,
    "no credential": lambda context: context.credential("missing", Login),
    "other kind": lambda context: context.credential("orders", int),
    "credential": _say_login,
    "no signature": lambda context: context.sign("orders", b"data"),
}

if __name__ == "__main__":
    handler.run()
