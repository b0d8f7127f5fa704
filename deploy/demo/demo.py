"""Starts every real part, tells the story of the refund desk, and counts what is left over.

The agent is a program of its own: it gets a client certificate, generated code and an address. Exits 0 when
everything that the story promises was so, 1 when something was not, 2 when a part could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from broker.dev import DevOptions, DevStack
from credentials.dev_postgres import DevPostgres
from credentials.errors import PartUnavailable
from deploy.demo.agent_process import AgentFailed, Identity, generate_code, open_agent, python_command
from deploy.demo.leftovers import find_files, find_processes, mark_children
from deploy.demo.people import Operator, Reviewer, read_grant_files
from deploy.demo.report import Report
from deploy.demo.story import BASE_GRANTS, ORDER, SCENES, Desk
from sandboxes.engine import EngineMissing

ROOT = Path(__file__).resolve().parents[2]
TOOL = "shop.v1.Orders/LookupOrder"


@dataclass(frozen=True)
class ShopRows:
    """Counts rows as the database's owner, beside everything that the broker does."""

    postgres: DevPostgres

    async def count(self, table: str) -> int:
        """Count a table's rows for order A-1042."""
        query = f"SELECT count(*) FROM {table} WHERE order_id = '{ORDER}'"  # noqa: S608 - fixed names
        rows = await asyncio.to_thread(self.postgres.query, query)
        return int(rows[0][0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=ROOT / ".toolcrib",
        help="gets cache/, which a second run finds again, and demo/ (default: %(default)s)",
    )
    parser.add_argument(
        "--engine", help="a Docker Engine's unix:// address (default: the usual socket, or one of our own)"
    )
    options = parser.parse_args(arguments)
    report = Report()
    try:
        asyncio.run(tell(options.state_dir, options.engine, report))
    except (PartUnavailable, EngineMissing, AgentFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    report.space()
    report.say(f"{report.checks - report.failures} of {report.checks} expectations held.")
    return 1 if report.failures else 0


async def tell(state_dir: Path, engine_url: str | None, report: Report) -> None:
    """Start the parts, play every scene, end the parts, and look for what is left."""
    mark = mark_children()
    report.say(f'The refund desk: an agent without a secret works on "refund order {ORDER}".')
    options = DevOptions(engine_url=engine_url, say=report.step)
    stack = DevStack(state_dir / "demo", state_dir / "cache", options=options)
    async with contextlib.AsyncExitStack() as running:
        async with report.progress("Starting the real parts"):
            await running.enter_async_context(stack)
        async with open_desk(stack, report) as desk:
            for scene in SCENES:
                await scene(desk)
        report.heading("What is left over")
        report.say("While everything still runs, after the last call:")
        report.left_over(await find_remains(stack))
    report.space()
    report.say("After everything has ended:")
    report.left_over({"processes": find_processes(mark), "files": find_files(stack.settings.run_dir)})


@contextlib.asynccontextmanager
async def open_desk(stack: DevStack, report: Report) -> AsyncIterator[Desk]:
    """Generate the agent's code from the exported client view, apply the first grants, start the agent."""
    async with contextlib.AsyncExitStack() as opened:

        async def connect(name: str, role: str, tenant: str = "shop") -> grpc.aio.Channel:
            profile = stack.profile(name, role, tenant)
            return await opened.enter_async_context(profile.connect_async())

        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="toolcrib-demo-")))
        reviewer = Reviewer(await connect("rita", "reviewer"))
        operator = Operator(await connect("otto", "operator"))
        await reviewer.apply(read_grant_files(BASE_GRANTS))
        generated = await generate_code(await operator.client_view(TOOL), folder) / "python"
        desk_agent = identify(stack, "refund-desk", "shop")
        agent = await opened.enter_async_context(
            open_agent(python_command(), stack.address, desk_agent, generated)
        )
        report.say(
            f"The agent is process {agent.pid}: an empty environment, a certificate, generated code. "
            f"The broker answers at {stack.address}."
        )
        yield Desk(
            run=secrets.token_hex(4),
            report=report,
            agent=agent,
            reviewer=reviewer,
            operator=operator,
            rival=Operator(await connect("rolf", "operator", "rival")),
            rows=ShopRows(stack.postgres),
            address=stack.address,
            identity=lambda name, tenant: identify(stack, name, tenant),
            generated=generated,
        )


def identify(stack: DevStack, name: str, tenant: str) -> Identity:
    """Have a certificate issued for an agent."""
    profile = stack.profile(name, "agent", tenant)
    return Identity(profile.ca_path, profile.cert_path, profile.key_path)


async def find_remains(stack: DevStack) -> dict[str, list[str]]:
    """Look for what a call may leave, where it would be."""
    roles = await asyncio.to_thread(stack.postgres.count_v_roles)
    sessions = await asyncio.to_thread(stack.postgres.count_v_sessions)
    owed = stack.broker.debts.count
    return {
        "containers": list(await stack.broker.fleet.leftovers()),
        "leases": await asyncio.to_thread(stack.vault.list_leases),
        "owed ends": [f"{owed} of leases"] if owed else [],
        "v- roles": [f"{roles} in PostgreSQL"] if roles else [],
        "sessions": [f"{sessions} of v- roles"] if sessions else [],
        "sockets": find_files(stack.settings.run_dir),
    }


if __name__ == "__main__":
    sys.exit(main())
