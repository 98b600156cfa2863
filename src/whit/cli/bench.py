"""``whit bench``: how long a compressed network takes, measured again."""

import json
from pathlib import Path
from typing import Annotated

import typer

from whit.cli.bars import Bars
from whit.cli.options import AsJson

__all__ = ["bench"]


def bench(
    folder: Annotated[Path, typer.Argument(help="A folder that whit compress wrote.")],
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of ONNX Runtime; by default as many as the run used.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long to measure.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Measure latency again, interleaved: the compressed network and, if it was kept, the original."""
    from whit.cli.timings import bench as run
    from whit.cli.timings import print_bench

    with Bars().bar("timing", 1):
        found = run(folder, threads=threads, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_bench(found)
