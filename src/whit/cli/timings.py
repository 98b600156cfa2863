"""Measuring the latency of a run's folder again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.text import Text

from whit import measure, runtime
from whit.cli.output import MODEL, ONNX, ORIGINAL, read_facts
from whit.cli.table import latency_text, plain_table, ratio
from whit.data import Array
from whit.errors import FileError
from whit.store import read

__all__ = ["bench", "print_bench"]


def bench(folder: str | Path, *, threads: int | None = None, seconds: float = 5.0) -> dict[str, Any]:
    """Time calls through the networks in a run's folder, in turns.

    Args:
        folder: Written by ``whit compress``; the original network is measured if ``--keep-original`` left it there.
        threads: Of ONNX Runtime; by default as many as the run measured with. Calls take as many samples as it timed.
        seconds: About how long to measure.

    Returns:
        ``latency_ms`` by file, ``recorded_before`` (what the run measured of the original, or None where it was
        measured again, or measured in another runtime), ``threads``, ``batch``, ``versions`` and ``machine``.

    Raises:
        FileError: The folder is not one that a run left.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    threads, batch = threads or int(facts.get("threads", 1)), int(facts.get("batch", 1))
    network = read(folder / MODEL).onnx()
    sessions = {MODEL: runtime.Session(network, threads=threads, name=str(folder / MODEL))}
    for name in (ONNX, ORIGINAL):
        if (folder / name).exists():
            sessions[name] = runtime.open_onnx(folder / name, threads=threads)
    # A run for another runtime recorded the time in that one.
    comparable = ORIGINAL not in sessions and facts.get("runtime", "onnx") == "onnx"
    times = measure.latencies(list(sessions.values()), _call(network, batch), seconds=seconds)
    return {
        "folder": str(folder),
        "latency_ms": {name: asdict(time) for name, time in zip(sessions, times, strict=True)},
        "recorded_before": facts["before"]["latency_ms"] if comparable else None,
        "threads": threads,
        "batch": batch,
        "seconds": seconds,
        "versions": measure.versions(),
        "machine": measure.machine(),
    }


def print_bench(found: dict[str, Any], console: Console | None = None) -> None:
    """Print what ``bench`` found."""
    console = console or Console()
    times = {name: measure.Latency(**time) for name, time in found["latency_ms"].items()}
    recorded = found["recorded_before"]
    original = times.get(ORIGINAL) or (None if recorded is None else measure.Latency(**recorded))
    call = "one sample" if found["batch"] == 1 else f"{found['batch']} samples"
    made = plain_table(f"{call}, {found['threads']} thread(s)", "")
    if original is not None:
        made.add_row("original" if recorded is None else "original (recorded)", latency_text(original), "")
    for name in (MODEL, ONNX):
        if name in times:
            compared = "" if original is None else ratio(original.median, times[name].median)
            made.add_row(name, latency_text(times[name]), compared)
    console.print(made)
    if original is None:
        note = "The run measured the original in another runtime, and did not keep it: --keep-original does."
        console.print(Text(note))
    if recorded is not None:
        note = (
            "The original's time is the one that the run recorded, not measured again, so it may come from another "
            "machine or mood. Run whit compress with --keep-original to measure both together."
        )
        console.print(Text(note))


def _call(network: bytes, batch: int) -> tuple[Array, ...]:
    """Samples of noise for each input of an ONNX model."""
    generator = np.random.default_rng(0)
    session: Any = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    inputs: list[Array] = []
    for item in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in item.shape]
        match item.type:
            case "tensor(float)":
                inputs.append(generator.standard_normal(shape, np.float32))
            case "tensor(int64)":
                inputs.append(np.zeros(shape, np.int64))
            case other:
                raise FileError(f"input {item.name} is {other}, of which whit can make no sample")
    return tuple(inputs)
