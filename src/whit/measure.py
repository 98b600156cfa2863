"""What is delivered, measured: bytes, operations, time, quality, and whether runtime and framework agree."""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from whit.data import Array, Samples
from whit.errors import ParityError
from whit.metrics import Metric
from whit.network import Network
from whit.progress import Progress

__all__ = [
    "Figures",
    "Latency",
    "Parity",
    "agreement",
    "latencies",
    "machine",
    "parity",
    "predictions",
    "versions",
    "weights",
]

_BATCH = 256
_LEAST_AGREEMENT = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds for one call: the median, and the 5th and 95th percentile."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """A network measured.

    Attributes:
        parameters: How many numbers it has to learn.
        nonzero: How many of them are not zero.
        bytes: On disk: the ``.whit`` file, or the fp32 ONNX file of a network that was not compressed.
        bytes_onnx: The ONNX file on disk.
        macs: Multiply-accumulates for one sample.
        latency_ms: One call, in ONNX Runtime; of one sample, unless more were asked for.
        quality: The metric on the test data, from outputs of ONNX Runtime.
        memory: Bytes by which the file raises the peak of a process that opens and runs it (``whit.peak``); None where
            nothing asked for it.
    """

    parameters: int
    nonzero: int
    bytes: int
    bytes_onnx: int
    macs: int
    latency_ms: Latency
    quality: float
    memory: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far the runtime's outputs are from the framework's, on the test data.

    Attributes:
        max_abs: Largest difference of an output.
        mean_abs: Mean difference.
        agreement: Share of samples that agree, as the metric sees it: the same label, or, for values, a root mean
            square of the differences within a share of the outputs' standard deviation: a hundredth, or a tenth where
            activations are rounded, since a sum that lies near a half goes to one side or the other and takes the
            rest of the network along.
    """

    max_abs: float
    mean_abs: float
    agreement: float


def weights(network: Network) -> tuple[int, int]:
    """How many parameters a network has, and how many are not zero."""
    parameters = network.parameters().values()
    return sum(x.size for x in parameters), sum(int(np.count_nonzero(x)) for x in parameters)


def predictions(session: Callable[..., Array], samples: Samples, progress: Progress, what: str) -> Array:
    """A session's outputs for all samples."""
    parts: list[Array] = []
    with progress.bar(what, ceil(len(samples) / _BATCH)) as bar:
        for inputs, _ in samples.batches(_BATCH):
            parts.append(session(*inputs))
            bar.advance()
    return np.concatenate(parts)


def latencies(
    sessions: Sequence[Callable[..., Array]], inputs: tuple[Array, ...], *, seconds: float = 3.0
) -> list[Latency]:
    """Time for one call of each session, taken in turns so that the machine's moods meet all alike.

    Each round has an order of its own: what ran before a call decides what the caches hold.

    Args:
        sessions: Called with the inputs, each once a round.
        inputs: What to call them with.
        seconds: About how long to measure; at least 30 and at most 2,000 rounds.
    """
    for session in sessions:
        for _ in range(5):
            session(*inputs)
    times: list[list[float]] = [[] for _ in sessions]
    generator = np.random.default_rng(0)
    end = perf_counter() + seconds
    while len(times[0]) < 30 or (perf_counter() < end and len(times[0]) < 2000):
        for place in generator.permutation(len(sessions)):
            start = perf_counter()
            sessions[place](*inputs)
            times[place].append((perf_counter() - start) * 1e3)
    return [
        Latency(median=float(median), low=float(low), high=float(high))
        for low, median, high in (np.percentile(taken, (5, 50, 95)) for taken in times)
    ]


def agreement(expected: Array, found: Array, metric: Metric, tolerance: float = 0.01) -> Parity:
    """Compare outputs, sample by sample.

    Args:
        expected: Outputs ``(samples, ...)``.
        found: Outputs of the same shape.
        metric: Says which samples agree.
        tolerance: How large a sample's root mean square of differences may be, as a share of the standard deviation of
            what is expected.

    >>> from whit.metrics import Accuracy
    >>> agreement(np.array([[0.0, 1.0]]), np.array([[0.25, 1.0]]), Accuracy())
    Parity(max_abs=0.25, mean_abs=0.125, agreement=1.0)
    """
    difference = np.abs(expected.astype(np.float64) - found)
    agree = float(metric.agree(expected, found, tolerance).mean())
    return Parity(max_abs=float(difference.max()), mean_abs=float(difference.mean()), agreement=agree)


def parity(framework: Array, runtime: Array, metric: Metric, *, rounded: bool) -> Parity:
    """How far ONNX Runtime is from the framework, which must not be far.

    Args:
        framework: Outputs ``(samples, ...)``.
        runtime: Outputs of the same shape.
        metric: As of ``agreement``.
        rounded: Whether activations are rounded.

    Raises:
        ParityError: Fewer than 99 of 100 samples agree, and more than one does not.
    """
    found = agreement(framework, runtime, metric, 0.1 if rounded else 0.01)
    wrong = round((1 - found.agreement) * len(framework))
    if not found.agreement >= _LEAST_AGREEMENT and wrong > 1:
        raise ParityError(
            f"ONNX Runtime's outputs disagree with the framework's on {wrong} of {len(framework)} test samples "
            f"(largest difference {found.max_abs:.4g}), so the file would not be the network that was judged. On CPUs "
            "without VNNI, 8-bit weights saturate: give the weights reduce_range = true"
        )
    return found


def versions() -> dict[str, str]:
    """Versions of what takes part in a measurement."""
    found = {"python": platform.python_version()}
    for name in ("whit", "numpy", "onnxruntime", "onnx", "torch", "jax", "openvino", "ai-edge-litert", "executorch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What a measurement ran on."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
