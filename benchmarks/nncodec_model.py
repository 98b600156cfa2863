"""NNCodec on a whole network: run by ``size.py`` with the interpreter that has the package ``nncodec``.

Reads weights from a ``.safetensors`` file; for each quantization parameter writes the network that NNCodec decodes as
``QP.safetensors`` into a folder, and ``{QP: {"bytes": ..., "seconds": ...}}`` as ``results.json``.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from nncodec import nnc
from safetensors.numpy import load_file, save_file


def run(weights, qp, folder):
    """Encode, decode, and write what came out."""
    start = perf_counter()
    stream = nnc.compress(
        dict(weights), bitstream_path=str(folder / "stream.nnc"), qp=qp, use_dq=True, opt_qp=True, return_bitstream=True
    )
    seconds = perf_counter() - start
    decoded = nnc.decompress(stream)
    found = {name: np.ascontiguousarray(decoded[name], x.dtype).reshape(x.shape) for name, x in weights.items()}
    save_file(found, folder / f"{qp}.safetensors")
    return {"bytes": len(stream), "seconds": seconds}


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    # Counters of batches are no part of what a network computes.
    weights = {name: x for name, x in load_file(sys.argv[1]).items() if x.dtype == np.float32}
    results = {qp: run(weights, qp, folder) for qp in map(int, sys.argv[3].split(","))}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
