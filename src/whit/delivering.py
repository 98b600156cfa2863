"""A run's result is written to files, and every figure measured on these."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

from whit import measure, store
from whit.ledger import Ledger
from whit.measure import Figures, Latency, Parity
from whit.ranks import Ranks
from whit.result import Result
from whit.run import Run
from whit.runtime import load, open_onnx

__all__ = ["delivered"]


def delivered(run: Run) -> Result[Any]:
    """The result of a run that has taken its last step: written to files, and measured on them.

    Under ``torchrun`` the first process measures for all.
    """

    def measured() -> dict[str, Any]:
        with TemporaryDirectory(prefix="whit-") as folder:
            files = _written(run, Path(folder))
            before, after, floating, found = _figures(run, files)
            return {
                "before": before,
                "after": after,
                "parity": found,
                "seconds": perf_counter() - run.began,
                "file": files.whit.read_bytes(),
                "onnx": files.onnx.read_bytes(),
                "original_onnx": files.before.read_bytes(),
                "floating_ms": floating,
                "floating_onnx": files.floating.read_bytes() if files.floating is not None else b"",
            }

    return Result(
        model=cast(Any, run.network).module,
        plan=run.plan,
        ledger=run.ledger,
        metric=run.metric,
        skipped=tuple(run.skipped),
        threads=run.threads,
        batch=run.batch,
        bits=tuple(run.bits),
        **Ranks.here().from_first(measured),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    before: Path
    onnx: Path
    whit: Path
    floating: Path | None


def _written(run: Run, folder: Path) -> _Files:
    files = _Files(
        before=folder / "before.onnx",
        onnx=folder / "model.onnx",
        whit=folder / "model.whit",
        floating=folder / "floating.onnx" if run.ledger.activations() else None,
    )
    with run.progress.bar("exporting", 2) as bar:
        run.original.export(files.before, Ledger())
        bar.advance()
        run.network.export(files.onnx, run.ledger)
        bar.advance()
    if files.floating is not None:
        from whit.onnx.floating import in_floating_point

        files.floating.write_bytes(in_floating_point(files.onnx.read_bytes()))
    files.whit.write_bytes(store.encode(run.ledger, files.onnx.read_bytes(), run.about, profile=run.profile))
    return files


def _figures(run: Run, files: _Files) -> tuple[Figures, Figures, Latency | None, Parity]:
    test, metric, progress, threads = run.data.test, run.metric, run.progress, run.threads
    targets = {"before": run.given.test.targets, "after": test.targets}
    before = open_onnx(files.before, threads=0)
    after = load(files.whit, threads=0)
    outputs = {
        "before": measure.predictions(before, test, progress, "testing the original"),
        "after": measure.predictions(after, test, progress, "testing the result"),
    }
    with progress.bar("testing in the framework", 1):
        framework = run.network.predict(test)
    found = measure.parity(framework, outputs["after"], metric, rounded=bool(run.ledger.activations()))
    single = [open_onnx(files.before, threads=threads), load(files.whit, threads=threads)]
    if files.floating is not None:
        single.append(open_onnx(files.floating, threads=threads))
    with progress.bar("timing", 1):
        times = measure.latencies(single, test.call(run.batch))
    figures: list[Figures] = []
    sizes = ((files.before, files.before), (files.whit, files.onnx))
    for network, key, (file, onnx), time in zip(
        (run.original, run.network), ("before", "after"), sizes, times[:2], strict=True
    ):
        parameters, nonzero = measure.weights(network)
        figures.append(
            Figures(
                parameters=parameters,
                nonzero=nonzero,
                bytes=file.stat().st_size,
                bytes_onnx=onnx.stat().st_size,
                macs=network.graph().macs(),
                latency_ms=time,
                quality=metric(outputs[key], targets[key]),
            )
        )
    return figures[0], figures[1], times[2] if files.floating is not None else None, found
