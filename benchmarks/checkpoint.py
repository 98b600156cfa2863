"""A checkpoint of a billion parameters, made up and sharded, as codes of 4 bits: seconds, bytes and peak memory.

Shapes are those of a Llama of 2,048 channels, weights normal and in bfloat16 (2 GB in files of 200 MB). Each row is a
process of its own; its memory is the most that it held at once, and, with workers, what the largest of them held.

    python benchmarks/checkpoint.py --folder runs/checkpoint --json rows.json
    python benchmarks/checkpoint.py --folder runs/checkpoint --workers 1,2,ray
"""

import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from environment import arguments, report
from safetensors.numpy import save_file

import whit
from whit.workers import Processes, Ray, Workers

CHANNELS, HIDDEN, WORDS, LAYERS = 2048, 5632, 32000, 18
FILE_BYTES = 200_000_000


def main() -> None:
    """Make the checkpoint unless it is there, compress it each way and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/checkpoint"), help="for the checkpoint and what comes out"
    )
    parser.add_argument("--workers", default="0,1,2", help="comma-separated: 0 (this process), processes, ray (two)")
    parser.add_argument("--profiles", default="fast", help="comma-separated: fast, small")
    options = parser.parse_args()
    source = options.folder / "source"
    if not (source / "whole").exists():
        generate(source)
    rows: list[dict[str, Any]] = []
    for profile in options.profiles.split(","):
        for who in options.workers.split(","):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
                rows.append(own.submit(measured, source, options.folder / "out", who, profile).result())
            print(rows[-1], flush=True)
    report(rows, options.json)


def measured(source: Path, out: Path, who: str, profile: Any) -> dict[str, Any]:
    """One row."""
    shutil.rmtree(out, ignore_errors=True)
    plan = whit.Quantize(weights=whit.Int(bits=4, per="group", group_size=128))
    result = whit.compress_checkpoint(source, plan, out, profile=profile, workers=workers_of(who))
    return {
        "workers": who,
        "profile": profile,
        "parameters": result.parameters,
        "bytes before": result.bytes_before,
        "bytes": result.bytes,
        "bits a parameter": 8 * result.bytes / result.parameters,
        "seconds": result.seconds,
        "MB": peak(resource.RUSAGE_SELF),
        "MB of a worker": peak(resource.RUSAGE_CHILDREN),
    }


def workers_of(who: str) -> Workers:
    """By a word of the command line."""
    if who == "ray":
        return Ray("local", count=2)
    return Processes(int(who)) if int(who) else Workers()


def peak(whose: int) -> float:
    """The most megabytes held at once."""
    return resource.getrusage(whose).ru_maxrss * 1024 / 1e6


def generate(folder: Path) -> None:
    """Write the shards one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    some: dict[str, np.ndarray] = {}
    files = 0
    for name, values in tensors():
        some[name] = values
        if sum(one.nbytes for one in some.values()) >= FILE_BYTES or name == "lm_head.weight":
            save_file(some, folder / f"model-{files:05}.safetensors")
            some, files = {}, files + 1
    (folder / "whole").touch()


def tensors() -> Iterator[tuple[str, np.ndarray]]:
    """Names and values."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * random.standard_normal(shape, np.float32)).astype(ml_dtypes.bfloat16)

    yield "model.embed_tokens.weight", normal(WORDS, CHANNELS)
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        for part in ("q", "k", "v", "o"):
            yield f"{start}.self_attn.{part}_proj.weight", normal(CHANNELS, CHANNELS)
        yield f"{start}.mlp.gate_proj.weight", normal(HIDDEN, CHANNELS)
        yield f"{start}.mlp.up_proj.weight", normal(HIDDEN, CHANNELS)
        yield f"{start}.mlp.down_proj.weight", normal(CHANNELS, HIDDEN)
        yield f"{start}.input_layernorm.weight", np.ones(CHANNELS, ml_dtypes.bfloat16)
    yield "lm_head.weight", normal(WORDS, CHANNELS)


if __name__ == "__main__":
    main()
