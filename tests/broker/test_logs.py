"""The broker's log shows what is on its list, and of what goes wrong no more than where."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.logs import JsonFormatter, log_as_json
from broker.redaction import Redaction
from credentials.lease import ClientCertificate, KeyValues, Lease, SshLogin, UsernamePassword
from credentials.secret import Secret

CANARY = "cAnary-of-this-log"
SECRET = Secret(CANARY)
PAYLOADS = [
    UsernamePassword("v-user", SECRET),
    KeyValues({"a": SECRET}, 1),
    ClientCertificate("v-user", "pem", SECRET, "chain"),
    SshLogin("v-user", SECRET, "cert"),
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    log_as_json(written, logging.DEBUG)
    yield written
    root.handlers[:] = kept
    root.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)
def test_shows_no_secret_of_a_credential(stream: io.StringIO, payload: Any):
    now = datetime.now(UTC)
    lease = Lease("c", "lease", "accessor", "database", "role", payload, now, now)
    things = [payload, lease, [lease], {"lease": lease}, lease.secrets, lease.owed(), Redaction([lease])]
    logging.getLogger("x").warning("%s %r %s", things, things, lease, extra={"cause": repr(lease)})
    assert CANARY not in stream.getvalue()
    assert "accessor" in stream.getvalue()


def test_shows_of_an_exception_where_it_was_and_not_its_text(stream: io.StringIO):
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("x").exception("it failed")
    (line,) = read(stream)
    assert (line["message"], line["error"]) == ("it failed", "ValueError")
    assert "test_logs.py" in line["trace"][0]
    assert CANARY not in stream.getvalue()


def test_shows_no_field_that_is_not_listed(stream: io.StringIO):
    logging.getLogger("x").warning("a", extra={"password": CANARY, "call_id": "c1"})
    (line,) = read(stream)
    assert line["call_id"] == "c1"
    assert CANARY not in stream.getvalue()


async def test_shows_no_text_of_an_exception_that_nobody_waited_for(stream: io.StringIO):
    async def fail() -> None:
        raise ValueError(CANARY)

    task = asyncio.create_task(fail())
    await asyncio.wait((task,))
    del task
    gc.collect()
    assert "Task exception was never retrieved" in [line["message"] for line in read(stream)]
    assert CANARY not in stream.getvalue()


def test_a_plain_log_would_show_them_all():
    """The control: what the formatter keeps back is there."""
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s", (CANARY,), None)
    assert CANARY in JsonFormatter().format(record)
