"""Bytes against accuracy of trained CIFAR-10 residual networks: whit after rounding and after training, and NNCodec.

Weights and images come from ``WHIT_DATA``. Only weights are rounded; bytes are those of the whole ``.whit`` file, and
accuracy is that of all 10,000 test images in ONNX Runtime. Calibration and training use training images only. NNCodec's
bytes are its bitstream, the accuracy is that of the network it decodes to. It needs another NumPy, so it runs with an
interpreter of its own that has ``nncodec`` and ``safetensors``:

    python benchmarks/size.py --models resnet20,resnet56 --nncodec path/to/python --json rows.json --plot size.png
"""

import json
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from environment import HERE, arguments, data_file, report
from models import cifar_resnet
from safetensors.torch import load_file

import whit
from whit import Data, Distill, Finetune, FoldBatchNorm, Images, OptimalBrain, Plan, Quantize


class Prices(NamedTuple):
    """Prices of a bit: of whit's curve, of the rounding that training begins with, and of training; its speed."""

    curve: str
    begin: float
    training: float
    learning_rate: float


PRICES = {
    "resnet20": Prices("7e-8,1e-7,1.5e-7,2.2e-7,3.2e-7,5e-7,8e-7,1.2e-6", 6.5e-7, 1.2e-5, 1e-3),
    "resnet56": Prices("3e-8,4.5e-8,6e-8", 6e-8, 4e-6, 4e-4),
}
QPS = (-32, -28, -26, -24, -20)
"""Quantization parameters for NNCodec's."""
HELD_OUT = 5000
"""Training images to choose by."""
LOSSES = (0.2, 0.5, 1.0, 2.0, 3.5)
"""Points of accuracy that may be lost, at which the two curves are compared."""
IMAGES = Images(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NHWC")


def main() -> None:
    """Measure every network at every price and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet20", help="comma-separated: resnet20, resnet56")
    parser.add_argument("--rates", help="comma-separated prices of a bit for rounding alone, in place of ours")
    parser.add_argument("--epochs", type=float, default=0.0, help="train at a price for so long too; 0 leaves it out")
    parser.add_argument("--nncodec", metavar="PYTHON", help="interpreter that has the package nncodec")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves into a PNG (needs matplotlib)")
    options = parser.parse_args()
    data = samples()
    rows: list[dict[str, Any]] = []
    for model in options.models.split(","):
        for row in measured(model, data, options):
            rows.append(row)
            print(f"{model} {row['tool']}: {row['bytes']:,} bytes, {100 * row['accuracy']:.2f} %", flush=True)
    report(rows, options.json)
    if options.nncodec:
        for model in options.models.split(","):
            compare(model, rows, right(network(model), data))
    if options.plot:
        draw(rows, options.plot)


def measured(model: str, data: Data, options: Namespace) -> Iterator[dict[str, Any]]:
    """All rows of a network, one after the other."""
    prices = PRICES[model]
    for rate in filter(None, (prices.curve if options.rates is None else options.rates).split(",")):
        yield measure(model, "post-training", rounding(float(rate)), data)
    if options.nncodec:
        yield from nncodec(model, options.nncodec, data)
    if options.epochs:
        yield measure(model, "trained", training(options.epochs, prices), data)


def samples(*, choosing: bool = False) -> Data:
    """CIFAR-10, the training images in a fixed random order; to choose by, the last of them stand in for the test's."""
    train, test = (np.load(data_file(f"cifar10_{part}.npz")) for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train["x"]))
    x, y = train["x"][order], train["y"][order].astype(np.int64)
    if choosing:
        return Data.of(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:], images=IMAGES)
    return Data.of(x, y, test["x"], test["y"].astype(np.int64), images=IMAGES)


def rounding(rate: float) -> Plan:
    """Rounding alone."""
    return Plan(FoldBatchNorm(), Quantize(method=OptimalBrain(rate=rate), samples=1024))


def training(epochs: float, prices: Prices) -> Plan:
    """Coarse rounding, then training of codes, scales and biases by the original network."""
    distill = Distill(temperature=4.0)
    train = Finetune(
        epochs=epochs,
        learning_rate=prices.learning_rate,
        trains="both",
        rate=prices.training,
        augment=("flip", "shift"),
        distill=distill,
    )
    return Plan(*rounding(prices.begin).steps, train)


def measure(name: str, mode: str, plan: Plan, data: Data) -> dict[str, Any]:
    """One row."""
    start = perf_counter()
    result = whit.compress(network(name), plan, data=data)
    figures = {"bytes": len(result.file), "accuracy": result.after.quality, "seconds": perf_counter() - start}
    return {"model": name, "tool": "whit", "mode": mode} | figures


def network(name: str, weights: Path | None = None) -> torch.nn.Module:
    """A trained network, or one with the weights of another file."""
    model = getattr(cifar_resnet, name)()
    found = load_file(weights or data_file(f"cifar_resnet/{name}.safetensors"))
    model.load_state_dict(found, strict=False)  # counters of batches may be missing
    return model.eval()


def nncodec(name: str, python: str, data: Data) -> Iterator[dict[str, Any]]:
    """NNCodec's rows."""
    with TemporaryDirectory(prefix="whit-benchmark-") as folder:
        weights = data_file(f"cifar_resnet/{name}.safetensors")
        qps = ",".join(map(str, QPS))
        subprocess.run([python, str(HERE / "nncodec_model.py"), str(weights), folder, qps], check=True)
        results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        for qp, figures in results.items():
            decoded = network(name, Path(folder) / f"{qp}.safetensors")
            accuracy = {"accuracy": right(decoded, data)}
            facts = {"model": name, "tool": "nncodec", "mode": "post-training", "bytes": figures["bytes"]}
            yield facts | accuracy | {"seconds": figures["seconds"]}


def right(model: torch.nn.Module, data: Data) -> float:
    """The share of test images that a network labels rightly."""
    with torch.no_grad():
        found = [
            (model(torch.from_numpy(x)).argmax(1).numpy() == labels).sum() for (x,), labels in data.test.batches(500)
        ]
    return float(sum(found)) / len(data.test)


def compare(model: str, rows: list[dict[str, Any]], original: float) -> None:
    """Print how many bytes both tools need, after rounding alone, to lose so and so much."""
    for loss in LOSSES:
        wanted = original - loss / 100
        ours, theirs = (fewest(rows, model, tool, wanted) for tool in ("whit", "nncodec"))
        if ours and theirs:
            saved = f"{100 * (1 - ours / theirs):.0f} % fewer"
            print(f"{model} at {100 * wanted:.2f} %: {ours:,.0f} bytes against {theirs:,.0f}, {saved}")


def fewest(rows: list[dict[str, Any]], model: str, tool: str, accuracy: float) -> float | None:
    """Where a tool's curve, drawn through its rows in the order of their bytes, first reaches an accuracy."""
    chosen = [row for row in rows if (row["model"], row["tool"], row["mode"]) == (model, tool, "post-training")]
    points = sorted((row["bytes"], row["accuracy"]) for row in chosen)
    for (bytes_, lower), (more, higher) in pairwise(points):
        if lower < accuracy <= higher:
            return bytes_ + (more - bytes_) * (accuracy - lower) / (higher - lower)
    return None


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against bytes, one panel a network."""
    from matplotlib import pyplot

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = pyplot.subplots(1, len(models), figsize=(6 * len(models), 4), squeeze=False, layout="constrained")
    for panel, model in zip(panels[0], models, strict=True):
        for tool, mode in dict.fromkeys((row["tool"], row["mode"]) for row in rows if row["model"] == model):
            chosen = [row for row in rows if (row["model"], row["tool"], row["mode"]) == (model, tool, mode)]
            points = sorted((row["bytes"] / 1e3, 100 * row["accuracy"]) for row in chosen)
            panel.plot(*zip(*points, strict=True), "o-", label=f"{tool}, {mode}")
        panel.set(title=model, xlabel="kilobytes", ylabel="right of 10,000 test images, %")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
