"""``whit compress``: by a plan, or by the one that keeps to a budget."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from whit.cli.bars import Bars
from whit.cli.options import (
    Batch,
    ImageLayout,
    Mean,
    Overwrite,
    Profile,
    Scale,
    Std,
    Threads,
    images_of,
    model_of,
    workers_of,
)
from whit.data import Data
from whit.errors import OutputError, PlanError
from whit.plan import Plan
from whit.progress import Progress
from whit.ranks import Ranks
from whit.search.budget import Budget
from whit.steps import FoldBatchNorm, FoldParametrizations
from whit.target import Target

__all__ = ["compress"]


def compress(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, an .onnx file, or a .pt2 file of torch.export.save.")
    ],
    data: Annotated[str, typer.Option(help=".npz with arrays x and y, or package.module:make_data.")],
    out: Annotated[Path, typer.Option(help="Folder for model.whit, model.onnx, plan.toml and result.json.")],
    plan: Annotated[
        Path | None, typer.Option(help="TOML file with the steps; without it, the 8-bit integers of --target.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Look for the plan: 'drop<=1%, bytes<=240KB, latency<=2ms, macs<=20M, memory<=50MB, minimize=bytes'. "
            "A search that was stopped goes on in --out."
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="With --budget: when to end with the best so far, such as 60min.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --budget: how many processes try plans.")] = None,
    ray: Annotated[
        str | None, typer.Option(help="With --budget: address of a Ray cluster that tries plans instead.")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --budget: of all that is random.")] = 0,
    target: Annotated[
        str | None,
        typer.Option(
            help="Where it will run: here, or features of a CPU (avx2, vnni, arm-dot), and a runtime (onnx, openvino, "
            "litert, executorch), with commas between. A plan with formats that are slow or wrong there is refused."
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Test data, like --data; without it a fifth of the data is held out.")
    ] = None,
    metric: Annotated[str, typer.Option(help="accuracy, mae or mse.")] = "accuracy",
    weights: Annotated[Path | None, typer.Option(help="The model's weights, a safetensors file.")] = None,
    overwrite: Overwrite = False,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Write original.onnx too, for whit bench to compare with.")
    ] = False,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: ImageLayout = None,
    threads: Threads = 1,
    batch: Batch = 1,
    profile: Annotated[
        Profile, typer.Option(help="small: fewest bytes; fast: up to 4 % more, read several times faster.")
    ] = Profile.SMALL,
) -> None:
    """Compress a network by a plan, or by the one that keeps to a budget, and measure the file that comes out."""
    from whit.cli import output
    from whit.cli.inputs import data_from
    from whit.cli.table import print_result
    from whit.metrics import named

    images = images_of(scale, mean, std, layout)
    wanted = _budget(budget, time, plan, searching=workers is not None or ray is not None)
    quality = named(metric)
    if wanted is not None:
        settings = {
            "metric": quality,
            "target": _target(target),
            "workers": workers_of(workers, ray),
            "threads": threads,
            "batch": batch,
            "profile": profile.value,
            "seed": seed,
        }
        place = _resumable(out, overwrite=overwrite)
        samples = data_from(data, test, images)
        _search(wanted, model_of(model, weights, Bars()), samples, place, keep_original=keep_original, **settings)
        return
    folder = output.check_free(out, overwrite=overwrite)
    steps, place = _plan(plan, target)
    samples = data_from(data, test, images)
    first = Ranks.here().rank == 0
    bars = Bars() if first else Progress()
    network = model_of(model, weights, bars)

    from whit.compress import compress as run

    with _quiet():
        result = run(
            network,
            steps,
            data=samples,
            metric=quality,
            target=place,
            threads=threads,
            batch=batch,
            profile=profile.value,
            progress=bars,
        )
    if not first:
        return
    try:
        output.write_run(result, folder, overwrite=overwrite, keep_original=keep_original)
    except OutputError as error:
        spare = _spare(folder)
        output.write_run(result, spare, keep_original=keep_original)
        raise OutputError(f"{error}\nThe result is not lost: it is in {spare}") from error
    print_result(result)
    typer.echo(f"Written to {out} in {result.seconds:.0f} s.")


@contextmanager
def _quiet() -> Generator[None]:
    """Within, torch 2.13 does not warn of its own use of what it deprecated, wherever an exported program is copied."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        yield


def _budget(text: str | None, time: str | None, plan: Path | None, *, searching: bool) -> Budget | None:
    """The budget that a search is to keep to, or None where a plan is given."""
    if text is None and (time is not None or searching):
        raise PlanError("--time, --workers and --ray are of a search: say with --budget what the network may cost")
    if text is not None and plan is not None:
        raise PlanError("--plan says what to do and --budget looks for it; give one of them")
    if text is not None and Ranks.here().count > 1:
        raise PlanError(
            "torchrun trains one plan by several processes, and a search with --budget tries many: give it --workers, "
            "and run torchrun with the --plan that it finds"
        )
    return None if text is None else Budget.of(text if time is None else f"{text}, time<={time}")


def _search(
    budget: Budget, network: object, samples: Data, folder: Path, *, keep_original: bool, **settings: Any
) -> None:
    """Look for a plan, and leave what was found in the folder."""
    from whit.cli.searched import print_found, write_found
    from whit.search import search

    with _quiet():
        found = search(network, budget, data=samples, folder=folder, progress=Bars(), **settings)
    write_found(found, folder, keep_original=keep_original)
    print_found(found)
    typer.echo(f"Written to {folder}; the search took {found.seconds:.0f} s.")


def _resumable(folder: Path, *, overwrite: bool) -> Path:
    """A folder in which a search can begin or go on; asked before the data are read."""
    from whit.cli.searched import check_resumable

    return check_resumable(folder, overwrite=overwrite)


def _target(text: str | None) -> Target | None:
    return None if text is None else Target.named(text)


def _plan(path: Path | None, target: str | None) -> tuple[Plan, Target | None]:
    """The steps, and where the network will run, which chooses them where there is no file with any."""
    from whit.toml import load_plan

    place = _target(target)
    if path is not None:
        return load_plan(path), place
    if place is None:
        raise PlanError("nothing says what to do: give steps with --plan, or a machine with --target, such as here")
    return Plan(FoldParametrizations(), FoldBatchNorm(), place.quantize()), place


def _spare(folder: Path) -> Path:
    """A free name beside a folder."""
    names = (folder.with_name(f"{folder.name}-{place}") for place in range(2, 1000))
    return next(name for name in names if not name.exists())
