"""The way out of a real container: its own sockets, and nothing beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandboxes.egress.process import EgressProcess
from tests.parts.engine import Obedient, answer_of
from tests.sandboxes.egress.conftest import OPENINGS, Start, listening, open_way_out

pytestmark = pytest.mark.engine

PROGRAM = """
import errno, os, socket

OPENING = b""

def attempt(path):
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(path)
            door.sendall(OPENING + b"hello")
            return door.recv(100).decode()
    except OSError as error:
        return errno.errorcode[error.errno]

def unlink(path):
    try:
        os.unlink(path)
    except OSError as error:
        return errno.errorcode[error.errno]

orders = "/run/toolcrib/orders-db/.s.PGSQL.5432"
payroll = "/run/toolcrib/payroll-db/.s.PGSQL.5432"
answer = f"{attempt(orders)} {attempt(payroll)} {unlink(orders)}"
"""


async def run_with_way_out(
    obedient: Obedient,
    process: EgressProcess,
    target: str = "orders-db",
    program: str = PROGRAM,
    other_uid: int = 0,
    kind: str = "postgresql",
) -> str:
    spec = obedient.spec()
    async with open_way_out(process, "call-1", other_uid or spec.uid, [target]) as egress:
        spec = replace(spec, socket_dir=egress.socket_dir)
        async with obedient.driver.create(spec, "call-1") as sandbox:
            start = obedient.start(program.replace('OPENING = b""', f"OPENING = {OPENINGS[kind]!r}"))
            return answer_of(await sandbox.run(start, 10.0))


async def test_reaches_its_own_target_and_no_other(start: Start, obedient: Obedient) -> None:
    async with listening("orders-db") as orders, listening("payroll-db") as payroll:
        process = await start(orders, payroll)
        async with open_way_out(process, "call-2", obedient.driver.allocate_uid(), ["payroll-db"]):
            assert await run_with_way_out(obedient, process) == "hello ENOENT EROFS"


@pytest.mark.parametrize("kind", ["smtp", "ldap", "ssh", "tls"])
async def test_reaches_a_target_of_each_kind_by_its_name(start: Start, obedient: Obedient, kind: str) -> None:
    name = "t" * 43  # the longest that a client can connect to
    program = PROGRAM.replace("orders-db/.s.PGSQL.5432", f"{name}/{name}.sock")
    async with listening(name, kind=kind) as target:
        process = await start(target)
        answer = await run_with_way_out(obedient, process, name, program, kind=kind)
        assert answer == "hello ENOENT EROFS"


async def test_reaches_nothing_by_a_socket_of_another_user(start: Start, obedient: Obedient) -> None:
    async with listening("orders-db") as orders:
        process = await start(orders)
        other = obedient.driver.allocate_uid()
        assert await run_with_way_out(obedient, process, other_uid=other) == "EACCES ENOENT EROFS"
