"""``whit checkpoint``: by weights alone, shard by shard."""

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.bars import Bars
from whit.cli.options import Profile, workers_of
from whit.plan import Plan

__all__ = ["checkpoint"]


def checkpoint(
    path: Annotated[Path, typer.Argument(help="A safetensors file, or a folder with a checkpoint's shards.")],
    out: Annotated[Path, typer.Option(help="Folder for the .whit shards; a run that was stopped goes on from there.")],
    plan: Annotated[
        Path | None,
        typer.Option(help="TOML file with steps that need only weights; by default 4 bits in groups of 128."),
    ] = None,
    profile: Annotated[Profile, typer.Option(help="How codes are stored, as for whit compress.")] = Profile.FAST,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a shard in memory.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster that makes the shards instead.")] = None,
) -> None:
    """Compress a checkpoint that may be larger than memory, shard by shard, by its weights alone."""
    from whit.checkpoint import compress_checkpoint
    from whit.cli.table import bytes_text
    from whit.formats import Int
    from whit.plan import Quantize
    from whit.toml import load_plan

    steps = load_plan(plan) if plan else Plan(Quantize(weights=Int(bits=4, per="group", group_size=128)))
    who = workers_of(workers, ray)
    made = compress_checkpoint(path, steps, out, profile=profile.value, workers=who, progress=Bars())
    for one in made.skipped:
        typer.echo(f"Skipped by {one.step}: {one.layer}: {one.reason}")
    bits = 8 * made.bytes / made.parameters
    typer.echo(
        f"{bytes_text(made.bytes_before)} became {bytes_text(made.bytes)} in {len(made.shards)} shards in {out}, "
        f"{bits:.2f} bits for each of {made.parameters:,} parameters, in {made.seconds:.0f} s."
    )
