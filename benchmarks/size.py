"""Bytes against accuracy of trained CIFAR-10 residual networks: rounding at a price, and training at a price.

Weights and images come from ``WHIT_DATA``. Only weights are rounded; bytes are those of the whole ``.whit`` file, and
accuracy is that of all 10,000 test images in ONNX Runtime. Calibration and training use training images only.

    python benchmarks/size.py --models resnet20,resnet56 --json rows.json
"""

from time import perf_counter
from typing import Any

import numpy as np
from environment import arguments, data_file, report
from models import cifar_resnet
from safetensors.torch import load_file

import whit
from whit import Data, Distill, Finetune, FoldBatchNorm, Images, OptimalBrain, Plan, Quantize

RATES = (4e-9, 6e-9, 9e-9, 2e-8)
"""Prices of a bit for the curve."""
IMAGES = Images(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NHWC")


def main() -> None:
    """Measure every network at every price and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet20", help="comma-separated: resnet20, resnet56")
    parser.add_argument("--epochs", type=float, default=0.0, help="train at a price for so long too; 0 leaves it out")
    options = parser.parse_args()
    data = samples()
    rows: list[dict[str, Any]] = []
    for model in options.models.split(","):
        rows += [measure(model, "post-training", rounding(rate), data) for rate in RATES]
        if options.epochs:
            rows.append(measure(model, "trained", training(options.epochs), data))
    report(rows, options.json)


def samples() -> Data:
    """CIFAR-10, the training images in a fixed random order, of which the first 1,024 calibrate."""
    train, test = (np.load(data_file(f"cifar10_{part}.npz")) for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train["x"]))
    labels = [part["y"].astype(np.int64) for part in (train, test)]
    return Data.of(train["x"][order], labels[0][order], test["x"], labels[1], images=IMAGES)


def rounding(rate: float) -> Plan:
    """Rounding alone."""
    return Plan(FoldBatchNorm(), Quantize(method=OptimalBrain(rate=rate), samples=1024))


def training(epochs: float) -> Plan:
    """Coarse rounding, then training of codes, scales and biases by the original network."""
    train = Finetune(
        epochs=epochs, trains="both", rate=8e-8, augment=("flip", "shift"), distill=Distill(temperature=4.0)
    )
    return Plan(*rounding(3e-8).steps, train)


def measure(name: str, mode: str, plan: Plan, data: Data) -> dict[str, Any]:
    """One row."""
    model = getattr(cifar_resnet, name)()
    model.load_state_dict(load_file(data_file(f"cifar_resnet/{name}.safetensors")))
    start = perf_counter()
    result = whit.compress(model.eval(), plan, data=data)
    figures = {"bytes": len(result.file), "accuracy": result.after.quality, "seconds": perf_counter() - start}
    return {"model": name, "tool": "whit", "mode": mode} | figures


if __name__ == "__main__":
    main()
