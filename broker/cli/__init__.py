"""`toolcrib`: run a broker, call tools, review grants, read the record."""

from __future__ import annotations

import click

from broker.cli.audit import audit
from broker.cli.bundles import check, promote, register, review, versions
from broker.cli.calling import call
from broker.cli.calls import calls
from broker.cli.completion import completion
from broker.cli.diagnosis import doctor
from broker.cli.grants import grants
from broker.cli.output import Commands
from broker.cli.serving import dev, serve
from broker.cli.tools import tools


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 something is "
    "missing or unhealthy, 4 broker not reachable, 130 interrupted.",
)
@click.version_option(package_name="toolcrib-broker", prog_name="toolcrib")
def main() -> None:
    """Toolcrib runs tools for AI agents, which never hold credentials."""


for command in (check, register, versions, review, promote):
    tools.add_command(command)
for command in (dev, serve, call, tools, grants, calls, audit, doctor, completion):
    main.add_command(command)
