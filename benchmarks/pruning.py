"""Pruned CIFAR-10 residual networks: accuracy, zeros, multiply-accumulates and measured latency, side by side.

Weights and images come from ``WHIT_DATA``. Scores and training see training images only; accuracy is that of all 10,000
test images, and latency that of one image on one thread, of the delivered file in ONNX Runtime beside the original.

    python benchmarks/pruning.py --rows one-shot-50 --json rows.json
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from environment import arguments, report
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
    Taylor,
    schedules,
)


class Row(NamedTuple):
    """A network, how it is pruned, and about how long that takes."""

    model: str
    plan: Callable[[], Plan]
    minutes: int


def one_shot(amount: float) -> Plan:
    """Without training, a share at a time: what goes last is chosen among weights that made up for others."""
    shares = (0.5, 0.8, 1.0)
    cuts = (Prune(amount=share * amount, score=Hessian(), compensate=True) for share in shares)
    return Plan(FoldBatchNorm(), *cuts)


def training(epochs: float, learning_rate: float = 0.05) -> Finetune:
    """By the labels and the original network."""
    return Finetune(
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer="sgd",
        weight_decay=5e-4,
        augment=("flip", "shift"),
        distill=Distill(weight=0.7, temperature=4.0),
    )


def sparse(amount: float, epochs: float) -> Plan:
    """Single weights by the cubic schedule in the first quarter of the training; each layer's share by LAMP."""
    prune = Prune(amount=amount, score=LAMP(), scope="global")
    gradual = schedules.gradual(prune, training(epochs / 4), rounds=5)
    return Plan(*gradual, training(3 * epochs / 4), FoldBatchNorm())


def narrow(times: float, epochs: float) -> Plan:
    """Channels in two cuts, until the network takes so many times fewer multiply-accumulates."""
    cut = Prune(amount=0.9, unit="channel", score=Taylor(), scope="global", macs=times**-0.5, samples=2048)
    return Plan(cut, training(epochs / 6), cut, training(5 * epochs / 6), FoldBatchNorm())


ROWS = {
    "one-shot-50": Row("resnet20", lambda: one_shot(0.5), 3),
    "sparse-80": Row("resnet20", lambda: sparse(0.8, 40), 45),
    "sparse-90": Row("resnet20", lambda: sparse(0.9, 48), 55),
    "narrow-20": Row("resnet20", lambda: narrow(1.72, 48), 45),
    "narrow-56": Row("resnet56", lambda: narrow(2.55, 30), 85),
}


def main() -> None:
    """Run the rows that are asked for and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    known = ", ".join(f"{name} (about {row.minutes} minutes on two quiet cores)" for name, row in ROWS.items())
    parser.add_argument("--rows", default="one-shot-50", help=f"comma-separated: {known}")
    parser.add_argument("--choosing", action="store_true", help="judge on training images that were held out")
    options = parser.parse_args()
    data = samples(choosing=options.choosing)
    rows: list[dict[str, Any]] = []
    for name in options.rows.split(","):
        rows += measured(name, data)
        print(rows[-1], flush=True)
    report(rows, options.json)


def measured(name: str, data: Data) -> list[dict[str, Any]]:
    """The original and what became of it."""
    model, plan, _ = ROWS[name]
    torch.manual_seed(0)
    result = whit.compress(network(model), plan(), data=data)
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
        }
        for row, figures in (("fp32", result.before), (name, result.after))
    ]


if __name__ == "__main__":
    main()
