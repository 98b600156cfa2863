"""The codec alone on one core: bytes and speed of both profiles, and of NNCodec's entropy coder, on the same codes.

The codes are the weights of trained networks (batch norms multiplied in), rounded to steps in proportion to the
geometric mean of the layer's and the row's standard deviation. Speed is in MB of the same weights as fp32 a second, the
best of some runs. NNCodec needs another NumPy, so it runs with an interpreter of its own:

    python benchmarks/codec.py --nncodec path/to/python --json rows.json
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from environment import HERE, arguments, data_file, report
from safetensors.numpy import load_file

from whit import _core

MODELS = {
    "resnet20": "cifar_resnet/resnet20.safetensors",
    "resnet56": "cifar_resnet/resnet56.safetensors",
    "stories260k": "stories260k/model.safetensors",
}
STEPS = (0.5, 1.0, 2.0)


def main() -> None:
    """Measure every network at every step and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--nncodec", metavar="PYTHON", help="interpreter that has the package nncodec")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model, file in MODELS.items():
        weights = matrices(load_file(data_file(file)))
        for step in STEPS:
            codes = {name: rounded(matrix, step) for name, matrix in weights.items()}
            name = f"{model}, step {step}"
            for profile in ("small", "fast"):
                found = [run(each, profile, options.repeats) for each in codes.values()]
                rows.append(row(name, "whit", profile, codes, found))
            if options.nncodec:
                rows.append(row(name, "nncodec", "", codes, nncodec(codes, options.nncodec, options.repeats)))
    report(rows, options.json)


def matrices(tensors: dict[str, Any]) -> dict[str, Any]:
    """Every weight of two axes or more as a matrix of output channels by inputs, its batch norm multiplied in."""
    found: dict[str, Any] = {}
    for name, weight in tensors.items():
        if weight.ndim < 2:
            continue
        norm = name.replace("conv", "bn").removesuffix(".weight")
        matrix = weight.reshape(weight.shape[0], -1)
        if norm != name and f"{norm}.running_var" in tensors:
            factor = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"] + 1e-5)
            matrix = matrix * factor[:, None]
        found[name] = matrix
    return found


def rounded(matrix: Any, step: float) -> Any:
    """Codes of a matrix."""
    deviation = np.sqrt(matrix.std() * matrix.std(axis=1, keepdims=True))
    return np.rint(matrix / (deviation * step + 1e-12)).astype(np.int32)


def run(codes: Any, profile: str, repeats: int) -> tuple[int, float, float]:
    """Bytes, and the seconds to encode and to decode."""
    encoded = _core.encode(codes, profile)
    assert np.array_equal(_core.decode(encoded, *codes.shape), codes)
    encoding = least(lambda: _core.encode(codes, profile), repeats)
    return encoded.nbytes, encoding, least(lambda: _core.decode(encoded, *codes.shape), repeats)


def least(call: Callable[[], Any], repeats: int) -> float:
    """The least seconds that a call took."""
    seconds: list[float] = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return min(seconds)


def nncodec(codes: dict[str, Any], python: str, repeats: int) -> list[tuple[int, float, float]]:
    """What NNCodec makes of the same codes."""
    with TemporaryDirectory(prefix="whit-benchmark-") as folder:
        arrays, results = Path(folder) / "codes.npz", Path(folder) / "results.json"
        np.savez(arrays, **codes)
        subprocess.run([python, str(HERE / "nncodec_codes.py"), str(arrays), str(results), str(repeats)], check=True)
        found = json.loads(results.read_text(encoding="utf-8"))
    return [found[name] for name in codes]


def row(
    name: str, tool: str, profile: str, codes: dict[str, Any], found: list[tuple[int, float, float]]
) -> dict[str, Any]:
    """One line of the table: all tensors of a network together."""
    size, encoding, decoding = (sum(column) for column in zip(*found, strict=True))
    megabytes = 4 * sum(each.size for each in codes.values()) / 1e6
    speeds = {"encode_mb_s": megabytes / encoding, "decode_mb_s": megabytes / decoding}
    return {"tensor": name, "tool": tool, "profile": profile, "bytes": size} | speeds


if __name__ == "__main__":
    main()
