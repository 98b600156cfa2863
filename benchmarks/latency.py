"""int8 networks of whit and of its peers, side by side: milliseconds a sample in ONNX Runtime and in OpenVINO.

ResNet-20 has trained weights (from ``WHIT_DATA``) and is judged by its accuracy on all test images. The others have the
shape of MobileNetV2, ResNet-50 and BERT-base with random weights, and are judged by how near their outputs are to the
fp32 network's, in decibels; ``bert`` needs 12 GB of memory, ``bert4`` has four of its twelve layers. Every tool
calibrates on the same samples; calls of all are taken in turns.

    pip install 'whit[peers]'
    python benchmarks/latency.py --json rows.json
"""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from environment import arguments, data_file, report
from log import Log
from models.cifar_resnet import resnet20
from models.imagenet import MobileNetV2, ResNet50
from models.minilm import MiniLM
from peers import nncf_ir, onnxruntime_static
from safetensors.torch import load_file
from torch import nn

import whit
from whit import measure
from whit.data import Array
from whit.runtime import open_onnx

IMAGES = whit.Images(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NHWC")
NETWORKS = ("resnet20", "mobilenetv2", "resnet50", "bert", "bert4")


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long to time each network")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the files there, and use those that are")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.models.split(","):
        with TemporaryDirectory(prefix="whit-benchmark-") as temporary:
            folder = Path(options.keep or temporary) / name
            folder.mkdir(parents=True, exist_ok=True)
            rows += compare(case(name), folder, options.threads, options.seconds)
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
    sys.exit(f"no network {name}; there are {', '.join(NETWORKS)}")


def cifar() -> whit.Data:
    """512 training images to calibrate on, and all test images."""
    train, test = (np.load(data_file(f"cifar10_{part}.npz")) for part in ("train", "test"))
    return whit.Data.of(train["x"][:512], train["y"][:512], test["x"], test["y"], IMAGES)


def random_case(name: str, module: nn.Module) -> Case:
    """A network with random weights, its normalisations set by what it reads; targets are what it gives."""
    generator = np.random.default_rng(0)
    transformer = isinstance(module, MiniLM)
    if transformer:
        words = generator.integers(0, 30522, (48, 128))
        inputs: tuple[Array, ...] = (words, np.ones_like(words))
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


def plan(case: Case) -> whit.Plan:
    """Post-training int8 for this machine; biases make up for what rounding does to means, as those of nncf do."""
    step = whit.Target.here().quantize(range=whit.Percentile(percent=99.99), correct_biases=True)
    return whit.Plan(step) if case.transformer else whit.Plan(whit.FoldBatchNorm(), step)


def compare(case: Case, folder: Path, threads: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of one network."""
    names = {
        ("fp32", "onnxruntime"): folder / "fp32.onnx",
        ("whit", "onnxruntime"): folder / "whit.onnx",
        ("onnxruntime.quantization", "onnxruntime"): folder / "static.onnx",
        ("fp32", "openvino"): folder / "fp32.xml",
        ("whit", "openvino"): folder / "whit.xml",
        ("nncf", "openvino"): folder / "nncf.xml",
    }
    progress = Log()
    if not names["whit", "openvino"].exists():
        by_whit(case, names, progress)
    calibration = [x for x, _ in case.data.train.batches(1)]
    fp32 = names["fp32", "onnxruntime"]
    if not (static := names["onnxruntime.quantization", "onnxruntime"]).exists():
        with progress.bar("onnxruntime.quantization", 1):
            onnxruntime_static(
                fp32, static, calibration, reduce_range=whit.Target.here().saturates, transformer=case.transformer
            )
    if not names["nncf", "openvino"].exists():
        with progress.bar("nncf", 1):
            nncf_ir(fp32, names["nncf", "openvino"], calibration, transformer=case.transformer)
            plain_ir(fp32, names["fp32", "openvino"])
    return timed(case, names, threads, seconds, progress)


def by_whit(case: Case, names: dict[tuple[str, str], Path], progress: Log) -> None:
    """The fp32 network as ONNX, and whit's for both runtimes."""
    metric = "accuracy" if case.labels else "mse"
    result = whit.compress(case.module, plan(case), data=case.data, metric=metric, progress=progress)
    names["fp32", "onnxruntime"].write_bytes(result.original_onnx)
    names["whit", "onnxruntime"].write_bytes(result.onnx)
    made = whit.export(result, names["whit", "openvino"], to="openvino", samples=case.data, overwrite=True)
    print(f"{case.name}: {result.parity}, {made.parity}", file=sys.stderr)


def plain_ir(onnx: Path, out: Path) -> None:
    """An ONNX file as IR."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx), str(out), compress_to_fp16=False)


def timed(
    case: Case, files: dict[tuple[str, str], Path], threads: int, seconds: float, progress: Log
) -> list[dict[str, Any]]:
    """Judge each file, then time all in turns."""
    sample, _ = case.data.test.take(slice(0, 1))
    runs = {
        key: open_onnx(path, threads=threads) if path.suffix == ".onnx" else open_ir(path, sample, threads)
        for key, path in files.items()
    }
    quality = {key: judge(case, run, progress) for key, run in runs.items()}
    times = measure.latencies(list(runs.values()), sample, seconds=seconds)
    fastest = dict(zip(runs, times, strict=True))
    base = fastest["fp32", "onnxruntime"].median
    return [
        {
            "model": case.name,
            "tool": f"{tool} in {runtime}",
            "precision": "fp32" if tool == "fp32" else "int8",
            "threads": threads,
            "latency_ms": fastest[tool, runtime].median,
            "ratio_to_ort_fp32": fastest[tool, runtime].median / base,
            "quality": quality[tool, runtime],
            "bytes": path.stat().st_size + (path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0),
        }
        for (tool, runtime), path in files.items()
    ]


def open_ir(path: Path, sample: tuple[Array, ...], threads: int) -> Callable[..., Array]:
    """IR in OpenVINO, for batches of one sample, which is what it is fastest at."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape({port: list(x.shape) for port, x in zip(model.inputs, sample, strict=True)})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda *inputs: request.infer(list(inputs), share_inputs=True, share_outputs=True)[0].copy()


def judge(case: Case, run: Callable[..., Array], progress: Log) -> float:
    """Accuracy in percent, or the outputs' power over that of their error in decibels."""
    with progress.bar("judging", 1):
        outputs = np.concatenate([run(*inputs) for inputs, _ in case.data.test.batches(1)])
    targets = case.data.test.targets
    if case.labels:
        return 100 * float((outputs.argmax(1) == targets).mean())
    error = float(np.square(outputs.astype(np.float64) - targets).mean())
    return 10 * float(np.log10(targets.astype(np.float64).var() / error)) if error else float("inf")


if __name__ == "__main__":
    main()
