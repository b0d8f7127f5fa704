"""`toolcrib`: run a broker, call tools, review grants, read the record."""

from __future__ import annotations

import click

from broker.cli.serving import dev, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="toolcrib-broker", prog_name="toolcrib")
def main() -> None:
    """Toolcrib runs tools for AI agents, which never hold credentials."""


main.add_command(dev)
main.add_command(serve)
