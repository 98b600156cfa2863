"""The ``whit`` command: a thin shell over the library, one command a file."""

import sys
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from whit.cli.bench import bench
from whit.cli.checkpoint import checkpoint
from whit.cli.compress import compress
from whit.cli.demo import demo
from whit.cli.export import export
from whit.cli.inspect import inspect
from whit.errors import WhitError
from whit.ranks import Ranks

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Every error that whit raises on purpose is one message, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except WhitError as error:
            ranks = Ranks.here()
            who = f"process {ranks.rank}: " if ranks.rank > 0 else ""
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            console.print(f"[bold red]error:[/] {who}{escape(str(error))}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Neural networks every whit as good, a fraction of the size and measurably faster.",
)


def main() -> None:
    """The ``whit`` script."""
    app()


@app.callback()
def _prepare(context: typer.Context) -> None:  # pyright: ignore[reportUnusedFunction] (typer calls it)
    if "" not in sys.path:  # so that package.module:factory is found in the current folder
        sys.path.insert(0, "")
        context.call_on_close(lambda: sys.path.remove(""))


for _command in (compress, checkpoint, inspect, bench, export, demo):
    app.command()(_command)
