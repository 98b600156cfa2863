"""int8 networks of whit and of its peers, side by side: milliseconds a sample in ONNX Runtime, OpenVINO and others.

ResNet-20 has trained weights (from ``WHIT_DATA``) and is judged by its accuracy on all test images. The others have the
shape of MobileNetV2, ResNet-50, BERT-base and GPT-2 with random weights, and are judged by how near their outputs are
to the fp32 network's, in decibels; ``bert`` and ``gpt2`` need 12 GB of memory, ``bert4`` and ``gpt2-4`` have four of
the twelve layers. Every tool calibrates on the same samples; calls of all are taken in turns.

    pip install 'whit[peers]'
    python benchmarks/latency.py --json rows.json
    pip install ai-edge-litert executorch
    python benchmarks/latency.py --models resnet20 --runtimes onnxruntime,openvino,litert,executorch --int4
"""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from environment import arguments, data_file, report
from log import Log
from models.cifar_resnet import resnet20
from models.gpt2 import Gpt2
from models.imagenet import MobileNetV2, ResNet50
from models.minilm import MiniLM
from peers import nncf_ir, onnxruntime_static
from safetensors.torch import load_file
from torch import nn

import whit
from whit import measure
from whit.data import Array
from whit.export import Source, exporters
from whit.ledger import Ledger
from whit.metrics import Accuracy, MeanSquaredError
from whit.target import Runtime

IMAGES = whit.Images(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NHWC")
NETWORKS = ("resnet20", "mobilenetv2", "resnet50", "bert", "bert4", "gpt2", "gpt2-4")
NAMES: dict[str, Runtime] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "litert": "litert",
    "executorch": "executorch",
}
"""What runtimes are called here, and by whit."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, what it is calibrated and judged on, and whether its targets are labels or the fp32 outputs."""

    name: str
    module: nn.Module
    data: whit.Data
    labels: bool = False
    transformer: bool = False


def main() -> None:
    """Compress, convert and time each network, and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(NETWORKS[:4]), help="comma-separated")
    parser.add_argument("--runtimes", default="onnxruntime,openvino", help="comma-separated; also litert, executorch")
    parser.add_argument("--int4", action="store_true", help="files with weights of 4 bits too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long to time each network")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the files there, and use those that are")
    options = parser.parse_args()
    if options.runtimes.split(",")[0] != "onnxruntime" or set(options.runtimes.split(",")) - set(NAMES):
        parser.error(
            f"--runtimes {options.runtimes}: onnxruntime is what all are compared with, so it comes first; "
            f"there are {', '.join(NAMES)}"
        )
    rows: list[dict[str, Any]] = []
    for name in options.models.split(","):
        with TemporaryDirectory(prefix="whit-benchmark-") as temporary:
            folder = Path(options.keep or temporary) / name
            folder.mkdir(parents=True, exist_ok=True)
            rows += compare(case(name), folder, options)
        gc.collect()
    report(rows, options.json)


def case(name: str) -> Case:
    """A network by its name."""
    torch.manual_seed(0)
    match name:
        case "resnet20":
            module = resnet20()
            module.load_state_dict(load_file(data_file("cifar_resnet/resnet20.safetensors")))
            return Case(name=name, module=module.eval(), data=cifar(), labels=True)
        case "mobilenetv2":
            return random_case(name, MobileNetV2())
        case "resnet50":
            return random_case(name, ResNet50())
        case "bert" | "bert4":
            return random_case(name, MiniLM(768, 12 if name == "bert" else 4))
        case "gpt2" | "gpt2-4":
            return random_case(name, Gpt2(layers=12 if name == "gpt2" else 4))
    sys.exit(f"no network {name}; there are {', '.join(NETWORKS)}")


def cifar() -> whit.Data:
    """512 training images to calibrate on, and all test images."""
    train, test = (np.load(data_file(f"cifar10_{part}.npz")) for part in ("train", "test"))
    return whit.Data.of(train["x"][:512], train["y"][:512], test["x"], test["y"], IMAGES)


def random_case(name: str, module: nn.Module) -> Case:
    """A network with random weights, its normalisations set by what it reads; targets are what it gives."""
    generator = np.random.default_rng(0)
    transformer = isinstance(module, MiniLM | Gpt2)
    inputs: tuple[Array, ...]
    if isinstance(module, MiniLM):
        words = generator.integers(0, 30522, (48, 128))
        inputs = (words, np.ones_like(words))
    elif isinstance(module, Gpt2):
        inputs = (generator.integers(0, 50257, (48, 128)),)
    else:
        inputs = (generator.standard_normal((48, 3, 224, 224), np.float32),)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        with torch.no_grad():
            module.train()(torch.from_numpy(inputs[0][:16]))
    module.eval()
    with torch.no_grad():
        outputs = np.concatenate([module(*(torch.from_numpy(x[i : i + 8]) for x in inputs)) for i in range(0, 48, 8)])
    train, test = slice(0, 32), slice(32, 48)
    data = whit.Data.of([x[train] for x in inputs], outputs[train], [x[test] for x in inputs], outputs[test])
    return Case(name=name, module=module, data=data, transformer=transformer)


def plan(case: Case, precision: str) -> whit.Plan:
    """Post-training, for this machine; biases make up for what rounding does to means, as those of nncf do.

    With 4 bits only weights are rounded, which is for bytes: no runtime multiplies by integers so small.
    """
    settings = {"range": whit.Percentile(percent=99.99), "correct_biases": True}
    few = {"weights": whit.Int(bits=4), "activations": None, "method": whit.Nearest(clip="mse")}
    step = whit.Target.here().quantize(**settings, **(few if precision == "int4" else {}))
    return whit.Plan(step) if case.transformer else whit.Plan(whit.FoldBatchNorm(), step)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A file to judge and to time."""

    tool: str
    runtime: str
    precision: str
    path: Path

    @property
    def bytes(self) -> int:
        """On disk, with its companions."""
        return sum(file.stat().st_size for file in {self.path, *self.path.parent.glob(f"{self.path.stem}.bin")})


def compare(case: Case, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one network."""
    progress = Log()
    runtimes, rows = options.runtimes.split(","), list[Row]()
    for precision in ("int8", *(["int4"] if options.int4 else [])):
        rows += by_whit(case, folder, runtimes, precision, progress)
    rows = [*originals(case, folder, runtimes), *rows, *by_peers(case, folder, runtimes, progress)]
    rows.sort(key=lambda row: runtimes.index(row.runtime))
    return timed(case, rows, folder, options.threads, options.seconds, progress)


def by_whit(case: Case, folder: Path, runtimes: Sequence[str], precision: str, progress: Log) -> list[Row]:
    """The fp32 network as ONNX, what the rounded one gives in the framework, and its files for all runtimes."""
    wanted: list[Row] = []
    for runtime in runtimes:
        target = replace(whit.Target.here(), runtime=NAMES[runtime])
        try:
            target.check(plan(case, precision))
        except whit.PlanError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            continue
        path = folder / runtime / f"whit-{precision}{exporters()[NAMES[runtime]].suffix}"
        wanted.append(Row(tool="whit", runtime=runtime, precision=precision, path=path))
    if all(row.path.exists() for row in wanted):
        return wanted
    metric = "accuracy" if case.labels else "mse"
    result = whit.compress(case.module, plan(case, precision), data=case.data, metric=metric, progress=progress)
    (folder / "fp32.onnx").write_bytes(result.original_onnx)
    with progress.bar("running the rounded module", 1), torch.no_grad():
        batches = [inputs for inputs, _ in case.data.test.batches(64)]
        outputs = [result.model(*map(torch.from_numpy, inputs)).numpy() for inputs in batches]
    np.save(folder / f"{precision}.npy", np.concatenate(outputs))
    for row in wanted:
        made = whit.export(result, row.path, to=NAMES[row.runtime], samples=case.data, overwrite=True)
        print(f"{case.name}: {made}", file=sys.stderr)
    return wanted


def originals(case: Case, folder: Path, runtimes: Sequence[str]) -> list[Row]:
    """The fp32 network in files of all runtimes."""
    onnx, (sample, _) = folder / "fp32.onnx", case.data.test.take(slice(0, 1))
    source = Source(onnx=onnx.read_bytes(), ledger=Ledger(), module=case.module, example=sample)
    found: list[Row] = []
    for runtime in runtimes:
        exporter = exporters()[NAMES[runtime]]
        path = folder / runtime / f"fp32{exporter.suffix}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            if runtime == "openvino":
                plain_ir(onnx, path)
            else:
                exporter.write(source, path)
        found.append(Row(tool="fp32", runtime=runtime, precision="fp32", path=path))
    return found


def by_peers(case: Case, folder: Path, runtimes: Sequence[str], progress: Log) -> list[Row]:
    """The network through the quantizers of others."""
    calibration = [x for x, _ in case.data.train.batches(1)]
    fp32, found = folder / "fp32.onnx", list[Row]()
    if "onnxruntime" in runtimes:
        path = folder / "onnxruntime" / "static.onnx"
        if not path.exists():
            with progress.bar("onnxruntime.quantization", 1):
                saturates = whit.Target.here().saturates
                onnxruntime_static(fp32, path, calibration, reduce_range=saturates, transformer=case.transformer)
        found.append(Row(tool="onnxruntime.quantization", runtime="onnxruntime", precision="int8", path=path))
    if "openvino" in runtimes:
        path = folder / "openvino" / "nncf.xml"
        if not path.exists():
            with progress.bar("nncf", 1):
                nncf_ir(fp32, path, calibration, transformer=case.transformer)
        found.append(Row(tool="nncf", runtime="openvino", precision="int8", path=path))
    return found


def plain_ir(onnx: Path, out: Path) -> None:
    """An ONNX file as IR."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx), str(out), compress_to_fp16=False)


def timed(
    case: Case, rows: Sequence[Row], folder: Path, threads: int, seconds: float, progress: Log
) -> list[dict[str, Any]]:
    """Judge each file, then time all in turns."""
    sample, _ = case.data.test.take(slice(0, 1))
    runs = [opened(row, sample, threads) for row in rows]
    outputs = [outputs_of(case, run, progress) for run in runs]
    times = [one.median for one in measure.latencies(runs, sample, seconds=seconds)]
    base = next(time for row, time in zip(rows, times, strict=True) if row.precision == "fp32")
    return [
        {
            "model": case.name,
            "tool": f"{row.tool} in {row.runtime}",
            "precision": row.precision,
            "threads": threads,
            "latency_ms": time,
            "ratio_to_ort_fp32": time / base,
            "quality": quality(case, found),
            "bytes": row.bytes,
            "agreement": agreement(case, folder / f"{row.precision}.npy", found) if row.tool == "whit" else None,
        }
        for row, time, found in zip(rows, times, outputs, strict=True)
    ]


def opened(row: Row, sample: tuple[Array, ...], threads: int) -> Callable[..., Array]:
    """A file in its runtime."""
    if row.runtime == "openvino":
        return open_ir(row.path, sample, threads)
    return exporters()[NAMES[row.runtime]].open(row.path, threads=threads)


def open_ir(path: Path, sample: tuple[Array, ...], threads: int) -> Callable[..., Array]:
    """IR in OpenVINO, for batches of one sample, which is what it is fastest at."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape({port: list(x.shape) for port, x in zip(model.inputs, sample, strict=True)})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda *inputs: request.infer(list(inputs), share_inputs=True, share_outputs=True)[0].copy()


def outputs_of(case: Case, run: Callable[..., Array], progress: Log) -> Array:
    """For all test samples, one by one."""
    with progress.bar("judging", 1):
        return np.concatenate([run(*inputs) for inputs, _ in case.data.test.batches(1)])


def quality(case: Case, outputs: Array) -> float:
    """Accuracy in percent, or the outputs' power over that of their error in decibels."""
    targets = case.data.test.targets
    if case.labels:
        return 100 * float((outputs.argmax(1) == targets).mean())
    error = float(np.square(outputs.astype(np.float64) - targets).mean())
    return 10 * float(np.log10(targets.astype(np.float64).var() / error)) if error else float("inf")


def agreement(case: Case, framework: Path, outputs: Array) -> float:
    """On how many samples, in percent, a file agrees with the rounded module, as ``whit.export`` asks it to."""
    metric = Accuracy() if case.labels else MeanSquaredError()
    return 100 * measure.agreement(np.load(framework), outputs, metric, 0.2).agreement


if __name__ == "__main__":
    main()
