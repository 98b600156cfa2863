"""ResNet-20 on CIFAR-10 with few bits: W4A8 by rounding alone, W4A4 and W2A2 by training, all in ONNX Runtime.

W2A2 means weights of 2 bits, and 2 bits in what a layer reads. As in the papers, the first and the last layer take 8
bits, and so do the sums of the residual blocks. Weights and images come from ``WHIT_DATA``. Training uses training
images only. ResNet-56 teaches W4A4, asked once about every image; W2A2 learns from the labels and from the original
network, asked about every image as the training sees it. A training keeps its state in ``--folder`` every minute: the
same command goes on where it was stopped.

    python benchmarks/low_bit.py --folder runs/low_bit --json rows.json

What the plans fix (methods, ranges, learning rates) was chosen on 5,000 training images that took no part in it:

    python benchmarks/low_bit.py --folder runs/choice --choose --modes w4a8
    python benchmarks/low_bit.py --folder runs/choice --choose --modes w2a2 --epochs 1 --learning-rates 1e-3,3e-3
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from environment import arguments, report
from log import Log
from size import network, samples
from torch import nn

import whit
from whit import (
    Data,
    Distill,
    Finetune,
    FoldBatchNorm,
    Int,
    MeanSquaredError,
    Nearest,
    OptimalBrain,
    Percentile,
    Plan,
    Quantize,
    Rule,
)

BYTE = Int(bits=8, symmetric=False, per="tensor")
EDGES = Rule(
    layers="conv1|linear",
    use=Quantize(weights=Int(bits=8, reduce_range=True), activations=BYTE, range=Percentile(percent=99.99)),
)
BITS = {"w4a8": (4, 8), "w4a4": (4, 4), "w2a2": (2, 2)}
LEARNING_RATES = {"w4a4": 1e-3, "w2a2": 5e-4}
TEACHERS = {"w4a4": "resnet56", "w2a2": "resnet20"}
LESSONS = {"w4a4": Distill(once=True), "w2a2": Distill(weight=0.5)}
METHODS = {"nearest": Nearest(), "nearest, mse": Nearest(clip="mse"), "optimal brain": OptimalBrain()}
RANGES = {"99.99 %": Percentile(percent=99.99), "mse": MeanSquaredError()}


def main() -> None:
    """Measure every mode and print the table."""
    options = parsed()
    rows = [row for mode in options.modes.split(",") for row in (chosen if options.choose else measured)(mode, options)]
    report(rows, options.json)


def parsed() -> argparse.Namespace:
    """What the command line says."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--modes", default="w4a8,w4a4,w2a2", help="comma-separated: w4a8, w4a4, w2a2")
    parser.add_argument("--folder", type=Path, default=Path("runs/low_bit"), help="where trainings keep their state")
    parser.add_argument("--epochs", type=float, default=20.0, help="passes over the training images")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--teacher", choices=("resnet20", "resnet56"), help="in place of the mode's own")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"), help="of the training")
    parser.add_argument("--choose", action="store_true", help="compare settings on held-out training images")
    parser.add_argument("--learning-rates", default="5e-4,1e-3,2e-3,4e-3", help="to choose from")
    parser.add_argument("--samples", type=int, help="train on so many images only, for a quick look")
    return parser.parse_args()


def rounding(mode: str) -> Quantize:
    """What a mode rounds."""
    weights, activations = BITS[mode]
    step = Quantize(
        weights=Int(bits=weights, symmetric=weights > 2),  # symmetric ones of 2 bits have three values, not four
        activations=replace(BYTE, bits=activations),
        method=OptimalBrain(),
        range=MeanSquaredError(),
        samples=1024,
        rules=(EDGES,),
    )
    return step if activations == 8 else replace(step, residual=BYTE)


def training(mode: str, options: argparse.Namespace) -> Finetune:
    """How codes, steps and biases are trained."""
    return Finetune(
        epochs=options.epochs,
        learning_rate=LEARNING_RATES[mode],
        trains="both",
        batch_size=options.batch_size,
        samples=options.samples,
        precision=options.precision,
        batch_norm=True,
        augment=("flip", "shift"),
        distill=LESSONS[mode],
    )


def plan(mode: str, options: argparse.Namespace) -> Plan:
    """A mode's steps."""
    steps = (FoldBatchNorm(), rounding(mode))
    return Plan(*steps) if mode == "w4a8" else Plan(*steps, training(mode, options))


def measured(mode: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The last word: accuracy on all test images."""
    yield run(mode, plan(mode, options), samples(), options.folder / mode, teacher_of(mode, options))


def chosen(mode: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What settings give on held-out training images."""
    data = samples(choosing=True)
    for name, steps in candidates(mode, options):
        folder = options.folder / f"{mode}-{name}".replace(" ", "")
        yield run(f"{mode}, {name}", steps, data, folder, teacher_of(mode, options))


def candidates(mode: str, options: argparse.Namespace) -> Iterator[tuple[str, Plan]]:
    """The settings that are compared: of rounding where nothing is trained, else learning rates."""
    if mode == "w4a8":
        for method, codes in METHODS.items():
            for name, covered in RANGES.items():
                step = replace(rounding(mode), method=codes, range=covered)
                yield f"{method}, {name}", Plan(FoldBatchNorm(), step)
        return
    for rate in options.learning_rates.split(","):
        step = replace(training(mode, options), learning_rate=float(rate))
        yield f"rate {rate}", Plan(FoldBatchNorm(), rounding(mode), step)


def teacher_of(mode: str, options: argparse.Namespace) -> nn.Module | None:
    """What teaches, where anything is trained."""
    return None if mode == "w4a8" else network(options.teacher or TEACHERS[mode])


def run(name: str, steps: Plan, data: Data, folder: Path, teacher: nn.Module | None) -> dict[str, Any]:
    """One row."""
    start, cores = perf_counter(), process_time()
    student = network("resnet20")
    result = whit.compress(student, steps, data=data, teacher=teacher, checkpoints=folder, progress=Log())
    return {
        "model": "resnet20",
        "mode": name,
        "accuracy": result.after.quality,
        "fp32": result.before.quality,
        "bytes": len(result.file),
        "agreement": result.parity.agreement,
        "latency_ms": result.after.latency_ms.median,
        "fp32_ms": result.before.latency_ms.median,
        "seconds": perf_counter() - start,
        "core_seconds": process_time() - cores,
    }


if __name__ == "__main__":
    main()
