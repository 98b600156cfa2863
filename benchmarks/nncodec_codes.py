"""NNCodec's entropy coder on integer codes: run by ``codec.py`` with the interpreter that has the package ``nncodec``.

Reads matrices from an ``.npz``, writes ``{name: [bytes, seconds to encode, seconds to decode]}`` as JSON.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from nncodec.extensions import deepCABAC
from nncodec.nnc_core.hdsp.hdsp_tool import HDSP_OPTS_OFF

UNARY_LENGTH = 11  # NNCodec's default


def encode(codes):
    """The bytes of a matrix, adaptation speeds chosen by the encoder, as NNCodec does by default."""
    encoder = deepCABAC.Encoder()
    encoder.initCtxModels(UNARY_LENGTH, 1)
    rows = np.zeros(codes.shape[0], np.int32)
    encoder.encodeLayer(codes, 0, 0, 0, 0, 0, rows, *HDSP_OPTS_OFF(), 0, 0)
    return np.array(encoder.finish())


def decode(stream, shape):
    """The matrix again."""
    decoder = deepCABAC.Decoder()
    decoder.setStream(stream)
    decoder.initCtxModels(UNARY_LENGTH)
    codes = np.zeros(shape, np.int32)
    decoder.decodeLayer(codes, 0, 0, 0, 0, *HDSP_OPTS_OFF(), 0, 0)
    decoder.finish()
    return codes


def measure(codes, repeats):
    """Bytes, and the least seconds of some runs."""
    encoding, decoding = [], []
    for _ in range(repeats):
        start = perf_counter()
        stream = encode(codes)
        encoding.append(perf_counter() - start)
        start = perf_counter()
        decoded = decode(stream, codes.shape)
        decoding.append(perf_counter() - start)
        assert np.array_equal(decoded, codes)
    return [int(stream.nbytes), min(encoding), min(decoding)]


if __name__ == "__main__":
    arrays = np.load(sys.argv[1])
    found = {name: measure(arrays[name], int(sys.argv[3])) for name in arrays.files}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
