"""One large layer rounded by OptimalBrain: seconds, and peak memory in units of the layer as float32.

The weights are normal, and so is what they are multiplied with, of correlated features whose energies fall as 1/k.
"core" is the C++ call alone, "quantizer" all of ``OptimalBrain.quantize`` with its choice of steps. Each runs in a
process of its own; memory is what the call adds to the weights and moments that it is given.

    python benchmarks/one_layer.py --side 4096 --json rows.json
"""

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import numpy as np
from environment import arguments, report

from whit import Int, OptimalBrain, _core
from whit.moments import Moments

RATE = 1e-3
"""Price of a bit."""


def main() -> None:
    """Measure both calls and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the layer")
    options = parser.parse_args()
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), max_tasks_per_child=1) as own:
        rows = [own.submit(measure, call, options.side).result() for call in ("core", "quantizer")]
    report(rows, options.json)


def measure(call: str, side: int) -> dict[str, Any]:
    """One row."""
    weights, moments = layer(side)
    before = peak()
    start = perf_counter()
    codes = core(weights, moments) if call == "core" else quantizer(weights, moments)
    seconds = perf_counter() - start
    counts = np.bincount((codes - codes.min()).reshape(-1))
    shares = counts[counts > 0] / codes.size
    return {
        "call": call,
        "side": side,
        "threads": os.cpu_count(),
        "entropy": float(-(shares * np.log2(shares)).sum()),
        "seconds": seconds,
        "memory": (peak() - before) / weights.nbytes,
    }


def layer(side: int) -> tuple[np.ndarray, Moments]:
    """Weights and the moments of what they are multiplied with."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(side, side)).astype(np.float32)
    features = random.normal(size=(side, 256)).astype(np.float32) / np.sqrt(np.arange(1, 257, dtype=np.float32))
    second = (features @ features.T).astype(np.float64)[None]
    second[0, np.arange(side), np.arange(side)] += 0.1
    mean = np.zeros((1, side))
    return weights, Moments(second=second, cross=second, mean=mean, original=mean, sensitivity=np.ones(side))


def core(weights: np.ndarray, moments: Moments) -> np.ndarray:
    """The C++ call, with a step of one standard deviation."""
    scale, zero = np.ones((len(weights), 1), np.float32), np.zeros((len(weights), 1), np.int32)
    ones, threads = np.ones(len(weights)), os.cpu_count() or 1
    found = _core.optimal_brain(
        weights, moments.second, ones, scale, zero, len(weights), -127, 127, RATE, 0.01, threads=threads
    )
    return found[0]


def quantizer(weights: np.ndarray, moments: Moments) -> np.ndarray:
    """The quantizer as a plan calls it."""
    return OptimalBrain(rate=RATE).quantize(weights, Int(bits=8), moments).codes


def peak() -> int:
    """The most bytes this process has held at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
