"""`toolcrib`: run a broker, call tools, review grants, read the record."""

from __future__ import annotations

import click

from broker.cli.output import Commands

PLACES = {
    "agents": "broker.cli.agents:agents",
    "audit": "broker.cli.audit:audit",
    "call": "broker.cli.calling:call",
    "calls": "broker.cli.calls:calls",
    "completion": "broker.cli.completion:completion",
    "credentials": "broker.cli.credentials:credentials",
    "destinations": "broker.cli.destinations:destinations",
    "dev": "broker.cli.serving:dev",
    "doctor": "broker.cli.diagnosis:doctor",
    "egress": "broker.cli.egress:egress",
    "grants": "broker.cli.grants:grants",
    "images": "broker.cli.images:images",
    "leases": "broker.cli.leases:leases",
    "mcp": "broker.cli.mcp:mcp",
    "serve": "broker.cli.serving:serve",
    "store": "broker.cli.state:store",
    "tenants": "broker.cli.state:tenants",
    "tools": "broker.cli.tools:tools",
    "vault": "broker.cli.vault:vault",
    "workflows": "broker.cli.workflows:workflows",
}


@click.group(
    cls=Commands,
    places=PLACES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 something is "
    "missing or unhealthy, 4 broker not reachable, 130 interrupted.",
)
@click.version_option(package_name="toolcrib-broker", prog_name="toolcrib")
def main() -> None:
    """Toolcrib runs tools for AI agents, which never hold credentials."""
