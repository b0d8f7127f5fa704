"""`toolcrib completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

COMPLETE_VARIABLE = "_TOOLCRIB_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script.

    \b
    bash   eval "$(toolcrib completion bash)"        in ~/.bashrc
    zsh    eval "$(toolcrib completion zsh)"         in ~/.zshrc
    fish   toolcrib completion fish | source         in config.fish
    """  # noqa: D301 - click's own mark for a block that is not to be wrapped
    kind = get_completion_class(shell)
    assert kind is not None, "click knows each of the choices"
    click.echo(kind(context.find_root().command, {}, "toolcrib", COMPLETE_VARIABLE).source())
