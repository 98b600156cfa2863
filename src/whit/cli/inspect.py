"""``whit inspect``: what a file holds, or which channels a model couples."""

import json
from pathlib import Path
from typing import Annotated

import typer

from whit.cli.bars import Bars
from whit.cli.options import AsJson, model_of
from whit.errors import DataError

__all__ = ["inspect"]


def inspect(
    file: Annotated[str, typer.Argument(help="A .whit file; with --groups a model, named as for whit compress.")],
    as_json: AsJson = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Which channels can only be cut together, which cannot, and why.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="With --groups: .npz or package.module:make_data, what the model reads.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --groups: the model's weights, safetensors.")] = None,
) -> None:
    """Show what a .whit file holds: its plan, how each tensor is stored, what was cut and rounded."""
    from whit.cli.inspection import describe, print_description

    if groups:
        from whit.cli.grouping import describe_groups, print_groups
        from whit.cli.inputs import samples_from

        if data is None:
            raise DataError("whit inspect --groups runs the model to see what is coupled: give samples with --data")
        show, found = print_groups, describe_groups(model_of(file, weights, Bars()), samples_from(data))
    else:
        show, found = print_description, describe(file)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show(found)
