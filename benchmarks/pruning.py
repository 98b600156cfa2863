"""Pruned CIFAR-10 residual networks: accuracy, zeros, multiply-accumulates and measured latency, side by side.

Weights and images come from ``WHIT_DATA``. Scores and training see training images only; accuracy is that of all 10,000
test images, and latency that of one image on one thread, of the delivered file in ONNX Runtime beside the original.
Core seconds are those of both cores together, so that rows made beside other work can be compared too.

    python benchmarks/pruning.py --rows one-shot-50 --json rows.json
"""

from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import torch
from environment import arguments, report
from log import Log
from size import network, samples

import whit
from whit import (
    LAMP,
    Data,
    Distill,
    Finetune,
    FoldBatchNorm,
    Hessian,
    Plan,
    Prune,
    Rule,
    Taylor,
    schedules,
)


class Row(NamedTuple):
    """A network, how it is pruned, and about how long that takes."""

    model: str
    plan: Callable[[], Plan]
    minutes: int


def one_shot(amount: float) -> Plan:
    """Without training; each layer chooses in rounds what goes, the last among weights that made up for others."""
    return Plan(FoldBatchNorm(), Prune(amount=amount, score=Hessian(), compensate=True))


def training(epochs: float, learning_rate: float = 0.05) -> Finetune:
    """By the labels and by what the original network says of every image, which it is asked once."""
    return Finetune(
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer="sgd",
        weight_decay=5e-4,
        augment=("flip", "shift"),
        distill=Distill(weight=0.7, temperature=4.0, once=True),
        precision="bfloat16",
    )


def sparse(amount: float, epochs: float) -> Plan:
    """Single weights by the cubic schedule in the first quarter of the training; each layer's share by LAMP."""
    prune = Prune(amount=amount, score=LAMP(), scope="global")
    gradual = schedules.gradual(prune, training(epochs / 4), rounds=5)
    return Plan(*gradual, training(3 * epochs / 4), FoldBatchNorm())


def inner(macs: float, *others: Rule, multiple_of: int) -> Prune:
    """Channels within blocks, some at a time, until so large a share of the multiply-accumulates is left.

    ONNX Runtime's convolutions work on 8 or 16 channels at once, by the processor, and take as long for fewer. What the
    shortcuts carry stays: it is 16 wide where there are most pixels.
    """
    carried = Rule(layers=r"conv1|layer\d\.\d\.conv2")
    return Prune(
        amount=0.9,
        unit="channel",
        score=Taylor(),
        scope="global",
        macs=macs,
        multiple_of=multiple_of,
        samples=2048,
        rules=(carried, *others),
    )


def narrow(macs: float, epochs: float) -> Plan:
    """Channels alone."""
    return Plan(inner(macs, multiple_of=8), training(epochs), FoldBatchNorm())


def shallow(macs: float, epochs: float) -> Plan:
    """Of ResNet-56's 27 residual branches eight first, then channels within those that stay and are 32 wide or more.

    Five of the eight are 16 wide, so that only whole ones save time, and have the most pixels.
    """
    wide, first = Rule(layers=r"layer[23]\..*"), Rule(layers=r"layer1\..*")
    branches = (
        Prune(amount=5 / 9, unit="residual", rules=(wide,)),
        Prune(amount=3 / 16, unit="residual", rules=(first,)),
    )
    left = 0.699  # of the multiply-accumulates, without eight branches
    channels = inner(macs / left, first, multiple_of=16)
    return Plan(*branches, training(epochs / 6), channels, training(5 * epochs / 6), FoldBatchNorm())


ROWS = {
    "one-shot-50": Row("resnet20", lambda: one_shot(0.5), 3),
    "one-shot-80": Row("resnet20", lambda: one_shot(0.8), 3),
    "sparse-80": Row("resnet20", lambda: sparse(0.8, 52), 50),
    "sparse-90": Row("resnet20", lambda: sparse(0.9, 52), 50),
    "narrow-20": Row("resnet20", lambda: narrow(1 / 1.72, 64), 40),
    "narrow-56": Row("resnet56", lambda: shallow(1 / 2.52, 64), 85),
}


def main() -> None:
    """Run the rows that are asked for and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    known = ", ".join(f"{name} (about {row.minutes} minutes on two quiet cores)" for name, row in ROWS.items())
    parser.add_argument("--rows", default="one-shot-50", help=f"comma-separated: {known}")
    parser.add_argument("--choosing", action="store_true", help="judge on training images that were held out")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FOLDER",
        help="keep the state of trainings there, a folder a row, and go on from it; seconds are then those since",
    )
    options = parser.parse_args()
    data = samples(choosing=options.choosing)
    rows: list[dict[str, Any]] = []
    for name in options.rows.split(","):
        rows += measured(name, data, options.checkpoints and options.checkpoints / name)
        print(rows[-1], flush=True)
    report(rows, options.json)


def measured(name: str, data: Data, checkpoints: Path | None) -> list[dict[str, Any]]:
    """The original and what became of it."""
    model, plan, _ = ROWS[name]
    torch.manual_seed(0)
    start = process_time()
    result = whit.compress(network(model), plan(), data=data, checkpoints=checkpoints, progress=Log())
    cores = process_time() - start
    gone = sum(int((~one.mask).sum()) for one in result.ledger.masks().values())
    size = sum(one.mask.size for one in result.ledger.masks().values())
    return [
        {
            "model": model,
            "row": row,
            "accuracy": figures.quality,
            "sparsity": gone / size if size and row == name else 0.0,
            "parameters": figures.parameters,
            "macs": figures.macs,
            "times fewer macs": result.before.macs / figures.macs,
            "latency_ms": figures.latency_ms.median,
            "times faster": result.before.latency_ms.median / figures.latency_ms.median,
            "bytes": figures.bytes,
            "seconds": result.seconds if row == name else None,
            "core seconds": cores if row == name else None,
        }
        for row, figures in (("fp32", result.before), (name, result.after))
    ]


if __name__ == "__main__":
    main()
