"""Write a network for a runtime, run what was written, and deliver it only if the two agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from whit import measure
from whit.data import Array, Data, Samples
from whit.errors import DataError, OutputError, ParityError, PlanError
from whit.export.executorch import ExecuTorch
from whit.export.exporter import Exporter, Source
from whit.export.litert import LiteRt
from whit.export.onnx import Onnx
from whit.export.openvino import OpenVino
from whit.measure import Parity
from whit.metrics import Accuracy, MeanSquaredError
from whit.progress import Progress
from whit.runtime import Session
from whit.saving import HasFile
from whit.store import read, write_whole

__all__ = ["Exported", "export", "exporters"]

_TOLERANCE = 0.2
"""Of the outputs' standard deviation. A runtime that merges two roundings into one moves outputs by up to 0.15 of it in
a network of 50 layers with random weights (measured: OpenVINO), and is as near to the network before rounding; one that
computes something else moves them by 1 and more."""
_LEAST_AGREEMENT = 0.995


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written, with the proof.

    Attributes:
        to: Name of the runtime.
        files: What was written, the first is the one to open.
        bytes: Of all files together.
        parity: Between the runtime and the network in ONNX Runtime, on the samples that were given.
    """

    to: str
    files: tuple[Path, ...]
    bytes: int
    parity: Parity | None


def exporters() -> dict[str, Exporter]:
    """The runtimes that whit can export to, by name."""
    return {one.name: one for one in (Onnx(), OpenVino(), LiteRt(), ExecuTorch())}


def export(
    network: HasFile | str | Path,
    path: str | Path,
    *,
    to: str | Exporter,
    samples: Samples | Data | Array | tuple[Array, ...] | None = None,
    module: object | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a compressed network for another runtime, and compare what was written with the network.

    Every sample is run through the network in ONNX Runtime and through what was written in its own runtime. They agree
    on a sample if they give the same label, or, where the metric was not accuracy, if the root mean square of the
    differences is within a fifth of the outputs' standard deviation: runtimes that merge two roundings into one differ
    by rounding's own noise. Nothing is left behind unless they agree on 99.5 % of the samples.

    Args:
        network: A result of ``whit.compress``, or a ``.whit`` file.
        path: The file to write, with the runtime's suffix (``.onnx``, ``.xml``, ``.tflite``, ``.pte``); parents are
            made.
        to: ``"onnx"``, ``"openvino"``, ``"litert"``, ``"executorch"``, or an exporter of your own.
        samples: What to compare on: samples, data (their test samples), or an array ``(samples, ...)`` for each input.
            Only an ONNX file needs none: it is what whit itself runs.
        module: With a ``.whit`` file, the framework's network (``whit.load(..., into=...)``), for exporters that start
            from it; a result has its own.
        overwrite: Replace files that are there.
        progress: Shows what is under way.

    Returns:
        What was written, its bytes and how far it agrees.

    Raises:
        PlanError: There is no such runtime.
        DataError: There are no samples, or the network cannot run on them.
        OutputError: The suffix is not the runtime's, a file is there already, or cannot be written.
        ModelError: The runtime cannot hold this network, or its package is not installed.
        ParityError: The runtime does not compute what the network computes.

    >>> whit.export("model.whit", "out/model.xml", to="openvino", samples=x_test)         # doctest: +SKIP
    Exported(to='openvino', files=(PosixPath('out/model.xml'), ...
    """
    exporter, path = _exporter(to), Path(path)
    _check_free(path, exporter, overwrite=overwrite)
    known = None if samples is None and isinstance(exporter, Onnx) else _samples(samples)
    progress = progress or Progress()
    with TemporaryDirectory(prefix="whit-") as folder:
        source, labels = _source(network, module, known, Path(folder))
        session = None if known is None else Session(source.onnx, threads=0, name="the network")
        if session is not None:
            session(*source.example)  # samples that do not fit are told before anything is written
        with progress.bar(f"exporting to {exporter.name}", 1):
            written = exporter.write(source, Path(folder) / path.name)
        parity = None
        if known is not None and session is not None:
            parity = _compared(session, written[0], exporter, known, progress, labels=labels)
        return _delivered(written, path, exporter, parity)


def _source(
    network: HasFile | str | Path, module: object | None, samples: Samples | None, folder: Path
) -> tuple[Source, bool]:
    """What a ``.whit`` holds, be it of a result, and whether its outputs are labels."""
    if isinstance(network, str | Path):
        file = Path(network)
    else:
        file = folder / "network.whit"
        file.write_bytes(network.file)
        module = getattr(network, "model", None)
    stored = read(file)
    example = () if samples is None else samples.take(slice(0, 1))[0]
    source = Source(onnx=stored.onnx(), ledger=stored.ledger(), module=module, example=example)
    return source, stored.about.get("metric") == Accuracy.name


def _compared(
    session: Session, path: Path, exporter: Exporter, samples: Samples, progress: Progress, *, labels: bool
) -> Parity:
    """How far what was written is from the network, which must not be far."""
    expected = measure.predictions(session, samples, progress, "running the network")
    found = measure.predictions(exporter.open(path, threads=0), samples, progress, f"running {path.name}")
    parity = measure.agreement(expected, found, Accuracy() if labels else MeanSquaredError(), _TOLERANCE)
    wrong = round((1 - parity.agreement) * len(expected))
    if not parity.agreement >= _LEAST_AGREEMENT and wrong > 1:
        raise ParityError(
            f"{exporter.name} disagrees with the network on {wrong} of {len(expected)} samples (largest difference of "
            f"an output {parity.max_abs:.4g}), so nothing was written. On CPUs without VNNI, 8-bit weights saturate: "
            "quantize with reduce_range = true; or compare on samples of the kind that the network was made for"
        )
    return parity


def _delivered(written: Sequence[Path], path: Path, exporter: Exporter, parity: Parity | None) -> Exported:
    """Move what was written to its place, the file to open last."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent}: {error}") from error
    files = tuple(path.parent / one.name for one in written)
    size = sum(one.stat().st_size for one in written)
    for source, goal in reversed(list(zip(written, files, strict=True))):
        write_whole(goal, source.read_bytes())
    return Exported(to=exporter.name, files=files, bytes=size, parity=parity)


def _exporter(to: str | Exporter) -> Exporter:
    if isinstance(to, Exporter):
        return to
    known = exporters()
    if to not in known:
        raise PlanError(f"whit exports to {', '.join(known)}, not to {to!r}")
    return known[to]


def _check_free(path: Path, exporter: Exporter, *, overwrite: bool) -> None:
    if path.suffix != exporter.suffix:
        raise OutputError(
            f"{path}: a file for {exporter.name} ends in {exporter.suffix}; name it {path.stem}{exporter.suffix}"
        )
    taken = [one for one in (path, *(path.with_suffix(end) for end in exporter.companions)) if one.exists()]
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists already; choose another name, or pass overwrite=True (--overwrite)")


def _samples(given: Samples | Data | Array | tuple[Array, ...] | None) -> Samples:
    match given:
        case None:
            raise DataError("give samples to compare the export on: an export that was never run proves nothing")
        case Samples():
            return given
        case Data():
            return given.test
        case tuple():
            inputs = given
        case _:
            inputs = (np.asarray(given),)
    if not inputs or any(x.ndim == 0 for x in inputs):
        raise DataError("samples to compare an export on are arrays of samples, one for each input")
    return Samples(inputs, np.zeros(len(inputs[0]), np.int64), name="samples to compare on")
