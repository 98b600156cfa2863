"""Every number format in every kind of layer: decided, exported, stored, run in ONNX Runtime and loaded again."""

import re
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Codebook, Data, Float, Int, Nearest, OptimalBrain, PlanError, Quantize, formats
from whit.formats import Format
from whit.ledger import Rounded, matrix

LAYERS = ["table.weight", "conv.weight", "depthwise.weight", "head.weight"]
LAYOUTS = ({"per": "tensor"}, {"per": "channel"}, {"per": "group", "group_size": 5})
# Every width with and without a zero point, and every layout with each of the two.
INTEGERS = [
    Int(bits=bits, symmetric=symmetric, **LAYOUTS[(bits + shift) % 3])  # type: ignore[arg-type]
    for bits in range(1, 17)
    for symmetric, shift in ((True, 0), (False, 1))
]
FLOATS = [
    formats.FP16,
    formats.BF16,
    *(
        replace(target, **layout)
        for target in (formats.FP8_E4M3, formats.FP8_E5M2, formats.FP6_E3M2, formats.FP6_E2M3, formats.FP4_E2M1)
        for layout in LAYOUTS
    ),
]
BLOCKS = [
    formats.MXFP8_E4M3,
    formats.MXFP8_E5M2,
    formats.MXFP6_E3M2,
    formats.MXFP6_E2M3,
    formats.MXFP4,
    formats.MXINT8,
    formats.NVFP4,
]
OTHERS = [
    # Neither a type of ONNX nor 256 numbers.
    Float(exponent=6, mantissa=5),
    Float(exponent=3, mantissa=8, per="group", group_size=5),
    Float(exponent=2, mantissa=0, per="tensor"),
    *(Codebook(k=k, **layout) for k in (2, 16, 100) for layout in LAYOUTS),  # type: ignore[arg-type]
]
DTYPES = {
    (5, 10): np.float16,
    (8, 7): ml_dtypes.bfloat16,
    (4, 3): ml_dtypes.float8_e4m3fn,
    (5, 2): ml_dtypes.float8_e5m2,
    (3, 2): ml_dtypes.float6_e3m2fn,
    (2, 3): ml_dtypes.float6_e2m3fn,
    (2, 1): ml_dtypes.float4_e2m1fn,
}


class Net(nn.Module):
    """Reads 64 words as an image of 8 by 8: a table of embeddings, two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(24, 4)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(96, 3)

    def forward(self, words: Tensor) -> Tensor:
        image = self.table(words).transpose(1, 2).unflatten(2, (8, 8))
        image = F.relu(self.depthwise(F.relu(self.conv(image))))
        return self.head(F.max_pool2d(image, 2).flatten(1))


def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def data() -> Data:
    words = np.random.default_rng(0).integers(0, 24, (48, 64))
    with torch.no_grad():
        labels = network()(torch.from_numpy(words)).argmax(1).numpy()
    return Data.of(words[:32], labels[:32], words[32:], labels[32:])


def rounded_by_ml_dtypes(weights: np.ndarray, target: Float, decision: Rounded) -> np.ndarray:
    """The same weights, scaled as the decision says, through a type of ``ml_dtypes``; what lies beyond is clipped."""
    dtype = DTYPES[target.exponent, target.mantissa]
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    scale = np.repeat(decision.scale, target.block(decision.codes.shape[1]), axis=1)[:, : decision.codes.shape[1]]
    small = np.clip(matrix(weights) / scale, -largest, largest).astype(dtype).astype(np.float32)
    return (small * scale).reshape(weights.shape)


def check_delivered(result: whit.Result[Net], data: Data, folder: Path) -> None:
    """The file, the runtime and a fresh network hold just what was decided."""
    state = {name: tensor.numpy() for name, tensor in result.model.state_dict().items()}
    for name, decision in result.ledger.rounded().items():
        np.testing.assert_array_equal(state[name], decision.values())
    path = folder / "model.whit"
    whit.save(result, path)
    loaded = whit.load(path, into=Net()).state_dict()
    assert all(np.array_equal(loaded[name].numpy(), values) for name, values in state.items())
    outputs = whit.runtime.load(path)(*data.test.inputs)
    with torch.no_grad():
        expected = result.model(torch.from_numpy(data.test.inputs[0])).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("target", [*INTEGERS, *FLOATS, *BLOCKS, *OTHERS], ids=str)
def test_nearest_in_every_format_and_kind_of_layer(target: Format, data: Data, tmp_path: Path) -> None:
    given = {name: tensor.numpy() for name, tensor in network().state_dict().items()}
    result = whit.compress(network(), Quantize(weights=target), data=data)
    rounded = result.ledger.rounded()
    assert sorted(rounded) == sorted(LAYERS)
    for name, decision in rounded.items():
        assert decision.target == target
        codes = Nearest().quantize(matrix(given[name]), target)
        np.testing.assert_array_equal(decision.values(), target.dequantize(*codes).reshape(given[name].shape))
        if isinstance(target, Float) and (target.exponent, target.mantissa) in DTYPES:
            np.testing.assert_array_equal(decision.values(), rounded_by_ml_dtypes(given[name], target, decision))
    check_delivered(result, data, tmp_path)


GRIDS = [target for target in INTEGERS if target.has_zero]


@pytest.mark.parametrize("target", GRIDS, ids=str)
def test_optimal_brain_in_every_grid_and_kind_of_layer(target: Int, data: Data, tmp_path: Path) -> None:
    result = whit.compress(network(), Quantize(weights=target, method=OptimalBrain(), samples=32), data=data)
    assert sorted(result.ledger.rounded()) == sorted(LAYERS)
    assert all(decision.target == target for decision in result.ledger.rounded().values())
    check_delivered(result, data, tmp_path)


@pytest.mark.parametrize("target", [Int(bits=1), *FLOATS, *BLOCKS, *OTHERS], ids=str)
def test_optimal_brain_refuses_other_formats_and_names_the_nearest_that_it_takes(target: Format) -> None:
    with pytest.raises(PlanError) as refusal:
        Quantize(weights=target, method=OptimalBrain())
    named = re.search(r"take weights=(Int\(.*?\))", str(refusal.value))
    assert named is not None
    nearest = eval(named[1], {"Int": Int})
    assert (nearest.per, nearest.group_size) == (target.per, target.group_size)
    assert nearest.high - nearest.low >= min(target.high - target.low, 2)
    Quantize(weights=nearest, method=OptimalBrain())
