"""Two networks of MLPerf Tiny as int8, each from its ONNX file: accuracy, size and speed in ONNX Runtime.

Files and samples come from ``WHIT_DATA``. resnet8 is calibrated on 512 training images of CIFAR-10 and judged on all
10,000 test images. For keyword spotting there are 1,000 samples and no others, so each quarter is judged by a network
that was calibrated on 512 of the other three quarters: all are judged, none by a network that has seen it. Bytes, time
and agreement are those of the first such network.

    python benchmarks/mlperf_tiny.py --json rows.json
"""

from time import perf_counter
from typing import Any

import numpy as np
from environment import arguments, data_file, report

import whit

STEP = whit.Target.here().quantize(range=whit.Percentile(percent=99.99), samples=512, correct_biases=True)
"""Of five ranges, with and without corrected biases, the one whose outputs for keyword spotting diverge least from the
original's on the calibration samples."""
CALIBRATION = 512
QUARTERS = 4


def main() -> None:
    """Measure both networks and print the table."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    rows = [*measure("resnet8", "resnet8_cifar10_fp32", [images()]), *measure("kws", "dscnn_kws_fp32", words())]
    report(rows, options.json)


def images() -> whit.Data:
    """Training and test images as the network reads them, from 0 to 255 with channels last."""
    train, test = np.load(data_file("cifar10_train.npz")), np.load(data_file("cifar10_test.npz"))
    chosen = np.random.default_rng(0).permutation(len(train["y"]))[:CALIBRATION]
    x = train["x"][chosen].astype(np.float32)
    return whit.Data.of(x, train["y"][chosen], test["x"].astype(np.float32), test["y"])


def words() -> list[whit.Data]:
    """Each quarter of the keyword samples to judge on, with samples of the others to calibrate on."""
    stored = np.load(data_file("mlperf_tiny/kws01_1000.npz"))
    x = ((stored["x_int8"].astype(np.float64) - stored["zero_point"]) * stored["scale"]).astype(np.float32)
    quarters = np.array_split(np.random.default_rng(0).permutation(len(x)), QUARTERS)
    found: list[whit.Data] = []
    for place, judged in enumerate(quarters):
        others = np.concatenate(quarters[:place] + quarters[place + 1 :])[:CALIBRATION]
        found.append(whit.Data.of(x[others], stored["y"][others], x[judged], stored["y"][judged]))
    return found


def measure(model: str, file: str, parts: list[whit.Data]) -> list[dict[str, Any]]:
    """The rows of one network: the file as it is, and as int8."""
    path = data_file(f"mlperf_tiny/{file}.onnx")
    start = perf_counter()
    results = [whit.compress(path, STEP, data=data) for data in parts]
    seconds = (perf_counter() - start) / len(parts)
    first = results[0]
    sizes = [len(data.test) for data in parts]
    return [
        {
            "model": model,
            "tool": "whit",
            "mode": mode,
            "accuracy": float(np.average([figures.quality for figures in every], weights=sizes)),
            "bytes_whit": len(first.file) if mode == "int8" else None,
            "bytes_onnx": every[0].bytes_onnx,
            "latency_ms": every[0].latency_ms.median,
            "latency_ratio": first.before.latency_ms.median / every[0].latency_ms.median,
            "agreement": first.parity.agreement if mode == "int8" else None,
            "seconds": seconds if mode == "int8" else None,
        }
        for mode, every in (("fp32", [one.before for one in results]), ("int8", [one.after for one in results]))
    ]


if __name__ == "__main__":
    main()
