"""``whit demo``: what whit does to a real network."""

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.bars import Bars
from whit.errors import ModelError

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its data, networks and results.")] = Path(
        "whit-demo"
    ),
) -> None:
    """See whit work: train a network on answer sheets, compress it, and compare it with what is possible."""
    from importlib import import_module

    try:
        run = import_module("whit.demo.run").run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("whit"):
            raise
        raise ModelError(f"whit demo needs {error.name}: pip install 'whit[torch]'") from error
    run(folder, Bars())
