"""``whit export``: the network in a file, for another runtime."""

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.bars import Bars
from whit.cli.options import ImageLayout, Mean, Overwrite, Runtime, Scale, Std, images_of, model_of
from whit.errors import OutputError

__all__ = ["export"]


def export(
    file: Annotated[Path, typer.Argument(help="A .whit file.")],
    to: Annotated[Runtime, typer.Option(help="The runtime to write for.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; by default FILE with another ending.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Samples to compare on, .npz or package.module:make_data; needed for all but onnx."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What was compressed, package.module:factory or an .onnx file; needed for executorch alone."),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: ImageLayout = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the network in a .whit file for another runtime, and compare it there."""
    from whit.cli.inputs import samples_from
    from whit.cli.table import bytes_text, share_text
    from whit.export import export as run
    from whit.export import exporters
    from whit.saving import load

    exporter = exporters()[to.value]
    path = out or file.with_suffix(exporter.suffix)
    if path.exists() and path.samefile(file):
        raise OutputError(f"{path} is the file to export; choose another name with --out")
    samples = None if data is None else samples_from(data, images_of(scale, mean, std, layout))
    bars = Bars()
    module = None if model is None else load(file, into=model_of(model, None, bars))
    made = run(file, path, to=exporter, samples=samples, module=module, overwrite=overwrite, progress=bars)
    typer.echo(f"Written to {path}, {bytes_text(made.bytes)}.")
    if made.parity is not None:
        typer.echo(f"{to.value} and the network agree on {share_text(made.parity.agreement)} of the samples.")
