"""Formats in words, and what a file of each holds."""

from pathlib import Path

import numpy as np
import pytest

from whit import formats
from whit.cli.inspection import describe
from whit.formats import Codebook, Format, Int
from whit.ledger import Ledger, Rounded
from whit.quantizers import Nearest
from whit.store import encode, read

WORDS = [
    (Int(bits=1), "int1 per channel"),
    (Int(bits=8, symmetric=False, per="tensor"), "uint8 per tensor"),
    (Int(bits=4, per="group", group_size=32), "int4 per group of 32"),
    (formats.MXINT8, "int8 per group of 32, scales e8m0"),
    (formats.FP16, "fp16"),
    (formats.BF16, "bf16"),
    (formats.FP8_E4M3, "fp8 e4m3 per channel"),
    (formats.NVFP4, "fp4 e2m1 per group of 16, scales e4m3"),
    (Codebook(k=16), "codebook of 16 per tensor"),
]


@pytest.mark.parametrize(("target", "words"), WORDS, ids=[words for _, words in WORDS])
def test_a_weight_is_described_by_its_format_and_all_its_bytes(target: Format, words: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    decision = Rounded.of("w", target, weights.shape, Nearest().quantize(weights, target))
    path = tmp_path / "weights.whit"
    path.write_bytes(encode(Ledger().record(decision), None, {}))
    found = describe(path)
    (tensor,) = found["tensors"]
    assert tensor["stored"] == words
    assert tensor["shape"] == [8, 64]
    assert tensor["bytes"] == sum(entry.length for entry in read(path).container.entries)


def test_block_scales_take_about_a_byte_each_or_less() -> None:
    weights = np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32)
    sizes = {}
    for target in (formats.NVFP4, formats.MXFP4):
        decision = Rounded.of("w", target, weights.shape, Nearest().quantize(weights, target))
        sizes[target] = 8 * len(encode(Ledger().record(decision), None, {})) / weights.size
    assert sizes[formats.NVFP4] < 4.5  # bits a weight: 4, and 8 for 16 weights
    assert sizes[formats.MXFP4] < 4.25
