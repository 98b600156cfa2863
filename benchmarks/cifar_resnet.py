"""Trained CIFAR-10 residual networks as int8, through the command line: accuracy, size and speed in ONNX Runtime.

Weights and images come from ``WHIT_DATA``; activations are observed on training images, the accuracy is that of all
10,000 test images.

    python benchmarks/cifar_resnet.py --json rows.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from environment import HERE, arguments, data_file, report

from whit import FoldBatchNorm, Int, Percentile, Plan, Quantize, save_plan

PLAN = Plan(
    FoldBatchNorm(),
    Quantize(
        weights=Int(bits=8, reduce_range=True),
        activations=Int(bits=8, symmetric=False, per="tensor"),
        range=Percentile(percent=99.99),
    ),
)
IMAGES = ("--scale", str(1 / 255), "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--layout", "NHWC")


def main() -> None:
    """Run the command line on each network and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet20", help="comma-separated: resnet20, resnet56")
    options = parser.parse_args()
    rows = [row for model in options.models.split(",") for row in measure(model)]
    report(rows, options.json)


def measure(model: str) -> list[dict[str, Any]]:
    """The rows of one network: fp32, and int8 by the plan."""
    start = perf_counter()
    with TemporaryDirectory(prefix="whit-benchmark-") as folder:
        facts = compress(model, Path(folder))
    seconds = perf_counter() - start
    fp32, int8 = facts["before"], facts["after"]
    return [
        {
            "model": model,
            "tool": "whit",
            "mode": mode,
            "accuracy": figures["quality"],
            "bytes_whit": figures["bytes"] if mode == "int8" else None,
            "bytes_onnx": figures["bytes_onnx"],
            "latency_ms": figures["latency_ms"]["median"],
            "latency_ratio": fp32["latency_ms"]["median"] / figures["latency_ms"]["median"],
            "agreement": facts["parity"]["agreement"] if mode == "int8" else None,
            "seconds": seconds if mode == "int8" else None,
        }
        for mode, figures in (("fp32", fp32), ("int8", int8))
    ]


def compress(model: str, folder: Path) -> dict[str, Any]:
    """Run ``whit compress`` and read the result that it wrote."""
    save_plan(PLAN, folder / "plan.toml")
    command = [sys.executable, "-m", "whit", "compress", f"models.cifar_resnet:{model}"]
    command += ["--weights", str(data_file(f"cifar_resnet/{model}.safetensors"))]
    command += ["--data", str(data_file("cifar10_train.npz")), "--test", str(data_file("cifar10_test.npz")), *IMAGES]
    command += ["--metric", "accuracy", "--plan", str(folder / "plan.toml"), "--out", str(folder / "run")]
    subprocess.run(command, check=True, cwd=HERE, env=os.environ | {"COLUMNS": "100"})
    return json.loads((folder / "run" / "result.json").read_text())


if __name__ == "__main__":
    main()
