"""A network of depthwise convolutions on CIFAR-10 after training, as int8 and with weights of 4 bits, method by method.

Ranges of channels differ most in depthwise convolutions, so that one step for a whole weight fits few of them. Batch
normalisations are folded, activations are uint8 a tensor, and 512 training images are what methods see. Accuracy is
that of all 10,000 test images in ONNX Runtime; agreement of the file with torch is that on 500 training images. The
network is trained first, on 45,000 training images, unless ``--weights`` is a file that an earlier run left there.

    python benchmarks/depthwise.py --weights runs/mobilenet.safetensors --json rows.json

Ours at int8 has the ranges and corrected biases that ``mlperf_tiny.py`` chose. What methods give on the other 5,000
training images, to choose by, is told by

    python benchmarks/depthwise.py --weights runs/mobilenet.safetensors --choose
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import perf_counter
from typing import Any

import torch
from environment import arguments, report
from log import Log
from models.mobilenet import MobileNet
from safetensors.torch import load_file, save_file
from size import IMAGES, samples
from torch.nn import functional as F

import whit
from whit import (
    CrossLayer,
    Data,
    Equalize,
    FoldBatchNorm,
    Int,
    LearnedRounding,
    MinMax,
    OptimalBrain,
    Percentile,
    Plan,
    Quantize,
)
from whit.data import Samples
from whit.torch.training.augment import augmented

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 14, 128, 0.2, 5e-4
BYTE = Int(bits=8, symmetric=False, per="tensor")
COVERED = Percentile(percent=99.99)
COMPARED = 500
"""Held-out training images on which runtime and torch must agree."""


def main() -> None:
    """Train the network if need be, measure every method and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    default = Path(gettempdir()) / "whit-mobilenet.safetensors"
    parser.add_argument("--weights", type=Path, default=default, help="the trained network; made if it is not there")
    parser.add_argument("--bits", default="8,4", help="comma-separated: of the weights")
    parser.add_argument("--methods", help="comma-separated: only these")
    parser.add_argument("--choose", action="store_true", help="judge by held-out training images")
    options = parser.parse_args()
    if not options.weights.exists():
        train(options.weights)
    network = MobileNet()
    network.load_state_dict(load_file(options.weights))
    calibration, judged = parts(choosing=options.choose)
    rows: list[dict[str, Any]] = []
    for bits in map(int, options.bits.split(",")):
        for method, plan in plans(bits):
            if options.methods is None or method in options.methods.split(","):
                rows += measured(network.eval(), f"W{bits}A8", method, plan, calibration, judged, original=not rows)
    report(rows, options.json)


def parts(*, choosing: bool) -> tuple[Data, Samples]:
    """What methods calibrate on, with held-out images to compare runtime and torch on; and the images to judge by."""
    held_out = samples(choosing=True)
    x, y = held_out.test.inputs[0][:COMPARED], held_out.test.targets[:COMPARED]
    train = held_out.train
    calibration = Data.of(train.inputs[0], train.targets, x, y, images=IMAGES)
    return calibration, held_out.test if choosing else samples().test


def plans(bits: int) -> Iterator[tuple[str, Plan]]:
    """What is compared, by the method's name."""
    tensor, channel = Int(bits=bits, per="tensor"), Int(bits=bits)
    fold, equalize = FoldBatchNorm(), Equalize(by=CrossLayer())
    yield "min-max per tensor", Plan(fold, Quantize(weights=tensor, activations=BYTE, range=MinMax()))
    yield "equalized per tensor", Plan(fold, equalize, Quantize(weights=tensor, activations=BYTE, range=COVERED))
    yield "per channel", Plan(fold, Quantize(weights=channel, activations=BYTE, range=COVERED))
    yield (
        "corrected biases",
        Plan(fold, Quantize(weights=channel, activations=BYTE, range=COVERED, correct_biases=True)),
    )
    for name, method in (("optimal brain", OptimalBrain()), ("learned rounding", LearnedRounding())):
        yield name, Plan(fold, Quantize(weights=channel, activations=BYTE, range=COVERED, method=method))


def measured(
    network: MobileNet, mode: str, method: str, plan: Plan, calibration: Data, judged: Samples, *, original: bool
) -> Iterator[dict[str, Any]]:
    """A method's row, and before it the original's if asked."""
    start = perf_counter()
    result = whit.compress(network, plan, data=calibration, progress=Log())
    with TemporaryDirectory(prefix="whit-benchmark-") as folder:
        file, onnx = Path(folder) / "model.whit", Path(folder) / "model.onnx"
        whit.save(result, file)
        onnx.write_bytes(result.original_onnx)
        if original:
            accuracy = right(whit.runtime.open_onnx(onnx), judged)
            yield row("fp32", "", accuracy, result.before.bytes_onnx, None, None)
        accuracy = right(whit.runtime.load(file), judged)
    seconds = perf_counter() - start
    yield row(mode, method, accuracy, len(result.onnx), result.parity.agreement, seconds)


def row(
    mode: str, method: str, accuracy: float, size: int, agreement: float | None, seconds: float | None
) -> dict[str, Any]:
    """A row, shown at once."""
    found = {
        "model": "mobilenet",
        "mode": mode,
        "method": method,
        "accuracy": accuracy,
        "bytes_onnx": size,
        "agreement": agreement,
        "seconds": seconds,
    }
    print(found, flush=True)
    return found


def right(session: whit.runtime.Session, judged: Samples) -> float:
    """The share of images that a file labels rightly in ONNX Runtime."""
    found = [(session(*inputs).argmax(1) == labels).sum() for inputs, labels in judged.batches(250)]
    return float(sum(found)) / len(judged)


def train(path: Path) -> None:
    """Train the network and write its weights: Nesterov's momentum, one rise and one fall of the learning rate."""
    torch.manual_seed(0)
    data = samples(choosing=True).train
    (x,), labels = data.take(slice(0, len(data)))
    images, labels = torch.from_numpy(x), torch.from_numpy(labels)
    network = MobileNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    per_epoch = len(images) // BATCH
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * per_epoch, pct_start=0.2
    )
    network.train()
    for epoch in range(EPOCHS):
        for places in torch.randperm(len(images))[: per_epoch * BATCH].view(-1, BATCH):
            batch = augmented(images[places], ("flip", "shift")).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(network(batch), labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"trained {epoch + 1} of {EPOCHS} epochs: loss {loss.item():.3f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


if __name__ == "__main__":
    main()
