"""The ``whit`` command: a thin shell over the library."""

import json
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from whit.bars import Bars
from whit.budget import Budget
from whit.data import Data, Images
from whit.errors import DataError, ModelError, OutputError, PlanError, WhitError
from whit.plan import Plan
from whit.progress import Progress
from whit.ranks import Ranks
from whit.steps import FoldBatchNorm
from whit.target import Target
from whit.workers import Processes, Ray, Workers

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


class Layout(StrEnum):
    """Order of the axes of stored images."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class Profile(StrEnum):
    """How codes are stored."""

    SMALL = "small"
    FAST = "fast"


class Runtime(StrEnum):
    """What a ``.whit`` file can be exported to."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    LITERT = "litert"
    EXECUTORCH = "executorch"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from error


_Threads = Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime when latency is measured.")]
_Batch = Annotated[int, typer.Option(min=1, help="Samples of the calls of which latency is measured.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]
_Scale = Annotated[float | None, typer.Option(help="Images are multiplied by this first, e.g. 0.00392157 for bytes.")]
_Mean = Annotated[str | None, typer.Option(help="Then subtracted: one number a channel, a,b,c.")]
_Std = Annotated[str | None, typer.Option(help="Then divided by: one number a channel, a,b,c.")]
_Layout = Annotated[Layout | None, typer.Option(help="Order of the images' axes; the model reads NCHW.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.command()
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
    overwrite: _Overwrite = False,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Write original.onnx too, for whit bench to compare with.")
    ] = False,
    scale: _Scale = None,
    mean: _Mean = None,
    std: _Std = None,
    layout: _Layout = None,
    threads: _Threads = 1,
    batch: _Batch = 1,
    profile: Annotated[
        Profile, typer.Option(help="small: fewest bytes; fast: up to 4 % more, read several times faster.")
    ] = Profile.SMALL,
) -> None:
    """Compress a network by a plan, or by the one that keeps to a budget, and measure the file that comes out."""
    from whit import output
    from whit.inputs import data_from
    from whit.metrics import named
    from whit.table import print_result

    images = _images(scale, mean, std, layout)
    wanted = _budget(budget, time, plan, searching=workers is not None or ray is not None)
    quality = named(metric)
    if wanted is not None:
        settings = {
            "metric": quality,
            "target": _target(target),
            "workers": _workers(workers, ray),
            "threads": threads,
            "batch": batch,
            "profile": profile.value,
            "seed": seed,
        }
        place = _resumable(out, overwrite=overwrite)
        samples = data_from(data, test, images)
        _search(wanted, _model(model, weights, Bars()), samples, place, keep_original=keep_original, **settings)
        return
    folder = output.check_free(out, overwrite=overwrite)
    steps, place = _plan(plan, target)
    samples = data_from(data, test, images)
    first = Ranks.here().rank == 0
    bars = Bars() if first else Progress()
    network = _model(model, weights, bars)

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


def _workers(count: int | None, ray: str | None) -> Workers | None:
    """Who does tasks; None for this process."""
    if ray:
        return Ray(ray, count)
    return Processes(count) if count is not None and count > 1 else None


def _search(
    budget: Budget, network: object, samples: Data, folder: Path, *, keep_original: bool, **settings: Any
) -> None:
    """Look for a plan, and leave what was found in the folder."""
    from whit.search import search
    from whit.searched import print_found, write_found

    with _quiet():
        found = search(network, budget, data=samples, folder=folder, progress=Bars(), **settings)
    write_found(found, folder, keep_original=keep_original)
    print_found(found)
    typer.echo(f"Written to {folder}; the search took {found.seconds:.0f} s.")


def _resumable(folder: Path, *, overwrite: bool) -> Path:
    """A folder in which a search can begin or go on; asked before the data are read."""
    from whit.searched import check_resumable

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
    return Plan(FoldBatchNorm(), place.quantize()), place


def _images(scale: float | None, mean: str | None, std: str | None, layout: Layout | None) -> Images | None:
    """The options for images, or None where none was given."""
    if scale is None and mean is None and std is None and layout is None:
        return None
    order: Literal["NHWC", "NCHW"] = "NHWC" if layout is Layout.NHWC else "NCHW"
    return Images(
        scale=1.0 if scale is None else scale,
        mean=(0.0,) if mean is None else _numbers(mean),
        std=(1.0,) if std is None else _numbers(std),
        layout=order,
    )


def _model(where: str, weights: Path | None, bars: Progress) -> object:
    if where.endswith(".onnx"):
        if weights is not None:
            raise ModelError(f"{where} holds its weights itself; leave out --weights")
        return where
    with bars.bar("loading the network", 1):
        try:
            from whit.torch.sources import model_from
        except ModuleNotFoundError as error:
            raise ModelError(f"whit compress needs {error.name}: pip install 'whit[torch]'") from error
        return model_from(where, weights)


def _spare(folder: Path) -> Path:
    """A free name beside a folder."""
    names = (folder.with_name(f"{folder.name}-{place}") for place in range(2, 1000))
    return next(name for name in names if not name.exists())


@app.command()
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
    from whit.formats import Int
    from whit.plan import Quantize
    from whit.table import bytes_text
    from whit.toml import load_plan

    steps = load_plan(plan) if plan else Plan(Quantize(weights=Int(bits=4, per="group", group_size=128)))
    who = _workers(workers, ray)
    made = compress_checkpoint(path, steps, out, profile=profile.value, workers=who, progress=Bars())
    for one in made.skipped:
        typer.echo(f"Skipped by {one.step}: {one.layer}: {one.reason}")
    bits = 8 * made.bytes / made.parameters
    typer.echo(
        f"{bytes_text(made.bytes_before)} became {bytes_text(made.bytes)} in {len(made.shards)} shards in {out}, "
        f"{bits:.2f} bits for each of {made.parameters:,} parameters, in {made.seconds:.0f} s."
    )


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A .whit file; with --groups a model, named as for whit compress.")],
    as_json: _AsJson = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Which channels can only be cut together, which cannot, and why.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="With --groups: .npz or package.module:make_data, what the model reads.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --groups: the model's weights, safetensors.")] = None,
) -> None:
    """Show what a .whit file holds: its plan, how each tensor is stored, what was cut and rounded."""
    from whit.inspection import describe, print_description

    if groups:
        from whit.grouping import describe_groups, print_groups
        from whit.inputs import samples_from

        if data is None:
            raise DataError("whit inspect --groups runs the model to see what is coupled: give samples with --data")
        show, found = print_groups, describe_groups(_model(file, weights, Bars()), samples_from(data))
    else:
        show, found = print_description, describe(file)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show(found)


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(help="A folder that whit compress wrote.")],
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of ONNX Runtime; by default as many as the run used.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long to measure.")] = 5.0,
    as_json: _AsJson = False,
) -> None:
    """Measure latency again, interleaved: the compressed network and, if it was kept, the original."""
    from whit.bench import bench as run
    from whit.bench import print_bench

    with Bars().bar("timing", 1):
        found = run(folder, threads=threads, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_bench(found)


@app.command()
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
    scale: _Scale = None,
    mean: _Mean = None,
    std: _Std = None,
    layout: _Layout = None,
    overwrite: _Overwrite = False,
) -> None:
    """Write the network in a .whit file for another runtime, and compare it there."""
    from whit.export import export as run
    from whit.export import exporters
    from whit.inputs import samples_from
    from whit.saving import load
    from whit.table import bytes_text, share_text

    exporter = exporters()[to.value]
    path = out or file.with_suffix(exporter.suffix)
    if path.exists() and path.samefile(file):
        raise OutputError(f"{path} is the file to export; choose another name with --out")
    samples = None if data is None else samples_from(data, _images(scale, mean, std, layout))
    bars = Bars()
    module = None if model is None else load(file, into=_model(model, None, bars))
    made = run(file, path, to=exporter, samples=samples, module=module, overwrite=overwrite, progress=bars)
    typer.echo(f"Written to {path}, {bytes_text(made.bytes)}.")
    if made.parity is not None:
        typer.echo(f"{to.value} and the network agree on {share_text(made.parity.agreement)} of the samples.")


@app.command()
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
