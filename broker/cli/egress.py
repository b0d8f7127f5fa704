"""`toolcrib egress`: what tools may reach, and what they did reach."""

from __future__ import annotations

import click

from broker.cli.output import Commands

PLACES = {
    "explain": "broker.cli.egress_explain:explain",
    "log": "broker.cli.egress_log:log",
}


@click.group(cls=Commands, places=PLACES)
def egress() -> None:
    """See what a tool may reach on its way out, and what a call did reach."""
