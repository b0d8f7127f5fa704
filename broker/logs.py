"""The broker's log: one JSON object a line, from a fixed list of fields; never arguments or secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

# Whatever else a record carries is dropped: a field that is not here cannot leak.
FIELDS = ("call_id", "tenant", "agent", "method", "outcome", "millis", "cause", "container", "target")

_encode = json.JSONEncoder(ensure_ascii=False).encode


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message and the listed fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            # The type and where it was raised; an exception's text may hold what a caller sent.
            line["error"] = record.exc_info[0].__name__
            line["trace"] = _frames(record)
        return _encode(line)


def log_as_json(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send every logger of this process to a stream as JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    # What no line of ours says, no record has to find out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    # The loop tells of a task that nobody waited for line by line, with the text of its exception.
    return text.partition("\n")[0] if record.name == "asyncio" else text


def _frames(record: logging.LogRecord) -> list[str]:
    assert record.exc_info is not None
    frames = []
    traceback = record.exc_info[2]
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-8:]
