"""Every number format in every kind of layer: decided, exported, stored, run in ONNX Runtime and loaded again."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import (
    Codebook,
    Data,
    Float,
    HalfQuadratic,
    Int,
    LearnedRounding,
    Nearest,
    OptimalBrain,
    PlanError,
    Quantize,
    Rule,
    formats,
)
from whit.formats import Format
from whit.ledger import Rounded, matrix
from whit.quantizers import Quantizer

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


class Branch(nn.Module):
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


class Net(nn.Module):
    """A branch for every format, each with weights of its own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch() for _ in range(count))

    def forward(self, words: Tensor) -> Tensor:
        return torch.cat([branch(words) for branch in self.branches], 1)


class Delivered:
    """A network with every branch in another format, and what its file gives back."""

    def __init__(self, method: Quantizer, targets: Sequence[Format], folder: Path) -> None:
        torch.manual_seed(0)
        network = Net(len(targets)).eval()
        words = np.random.default_rng(0).integers(0, 24, (40, 64))
        with torch.no_grad():
            outputs = network(torch.from_numpy(words)).numpy()
        data = Data.of(words[:32], outputs[:32], words[32:], outputs[32:])
        rules = tuple(
            Rule(layers=rf"branches\.{place}\..*", use=Quantize(weights=target, method=method, samples=32))
            for place, target in enumerate(targets)
        )
        result = whit.compress(network, Quantize(method=method, samples=32, rules=rules), data=data, metric="mse")
        whit.save(result, folder / "model.whit")
        with torch.no_grad():
            self.outputs = np.split(result.model(torch.from_numpy(words[32:])).numpy(), len(targets), axis=1)
        runtime = whit.runtime.load(folder / "model.whit")
        self.runtime_outputs = np.split(runtime(words[32:]), len(targets), axis=1)
        self.ledger = result.ledger
        self.original, self.framework, self.loaded = (
            {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
            for module in (network, result.model, whit.load(folder / "model.whit", into=Net(len(targets))))
        )

    def branch(self, place: int) -> dict[str, Rounded]:
        """The rounded weights of a branch, checked to be those of the framework, the runtime and a fresh network."""
        prefix = f"branches.{place}."
        for name, values in self.framework.items():
            if name.startswith(prefix):
                np.testing.assert_array_equal(self.loaded[name], values)
        found = {name: one for name, one in self.ledger.rounded().items() if name.startswith(prefix)}
        assert sorted(found) == sorted(prefix + layer for layer in LAYERS)
        for name, decision in found.items():
            np.testing.assert_array_equal(self.framework[name], decision.values())
        ours, expected = self.runtime_outputs[place], self.outputs[place]
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        return found


def rounded_by_ml_dtypes(weights: np.ndarray, target: Float, decision: Rounded) -> np.ndarray:
    """The same weights, scaled as the decision says, through a type of ``ml_dtypes``; what lies beyond is clipped."""
    dtype = DTYPES[target.exponent, target.mantissa]
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    columns = decision.codes.shape[1]
    scale = np.repeat(decision.scale, target.block(columns), axis=1)[:, :columns]
    small = np.clip(matrix(weights) / scale, -largest, largest).astype(dtype).astype(np.float32)
    return (small * scale).reshape(weights.shape)


FORMATS = [*INTEGERS, *FLOATS, *BLOCKS, *OTHERS]
GRIDS = [target for target in INTEGERS if target.has_zero]
SOME_GRIDS = GRIDS[1:12:2]


@pytest.fixture(scope="module")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return Delivered(Nearest(), FORMATS, tmp_path_factory.mktemp("nearest"))


@pytest.fixture(scope="module")
def optimal_brain(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return Delivered(OptimalBrain(), GRIDS, tmp_path_factory.mktemp("optimal"))


@pytest.mark.parametrize("target", FORMATS, ids=str)
def test_nearest_in_every_format_and_kind_of_layer(target: Format, nearest: Delivered) -> None:
    for name, decision in nearest.branch(FORMATS.index(target)).items():
        assert decision.target == target
        given = nearest.original[name]
        codes = Nearest().quantize(matrix(given), target)
        np.testing.assert_array_equal(decision.values(), target.dequantize(*codes).reshape(given.shape))
        if isinstance(target, Float) and (target.exponent, target.mantissa) in DTYPES:
            np.testing.assert_array_equal(decision.values(), rounded_by_ml_dtypes(given, target, decision))


@pytest.fixture(scope="module")
def half_quadratic(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return Delivered(HalfQuadratic(), SOME_GRIDS, tmp_path_factory.mktemp("half"))


@pytest.mark.parametrize("target", SOME_GRIDS, ids=str)
def test_half_quadratic_in_some_grids_and_every_kind_of_layer(target: Int, half_quadratic: Delivered) -> None:
    for name, decision in half_quadratic.branch(SOME_GRIDS.index(target)).items():
        given = half_quadratic.original[name]
        nearest = target.dequantize(*Nearest(clip="mse").quantize(matrix(given), target)).reshape(given.shape)
        found, start = (float((np.abs(values - given) ** 0.7).sum()) for values in (decision.values(), nearest))
        assert found <= start


@pytest.fixture(scope="module")
def learned_rounding(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    method = LearnedRounding(iterations=20, learning_rate=1.0)
    return Delivered(method, SOME_GRIDS, tmp_path_factory.mktemp("learned"))


@pytest.mark.parametrize("target", SOME_GRIDS, ids=str)
def test_learned_rounding_in_some_grids_and_every_kind_of_layer(target: Int, learned_rounding: Delivered) -> None:
    for name, decision in learned_rounding.branch(SOME_GRIDS.index(target)).items():
        start = Nearest(clip="mse").quantize(matrix(learned_rounding.original[name]), target)
        np.testing.assert_array_equal(decision.scale, start.scale)
        np.testing.assert_array_equal(decision.zero_point, start.zero_point)
        assert np.abs(decision.codes - start.codes).max() <= (0 if name.endswith("table.weight") else 1)


@pytest.mark.parametrize("target", GRIDS, ids=str)
def test_optimal_brain_in_every_grid_and_kind_of_layer(target: Int, optimal_brain: Delivered) -> None:
    for decision in optimal_brain.branch(GRIDS.index(target)).values():
        assert decision.target == target
        assert decision.codes.any()


@pytest.mark.parametrize("method", [OptimalBrain(), HalfQuadratic(), LearnedRounding()], ids=str)
@pytest.mark.parametrize("target", [Int(bits=1), *FLOATS, *BLOCKS, *OTHERS], ids=str)
def test_methods_refuse_other_formats_and_name_the_nearest_that_they_take(target: Format, method: Quantizer) -> None:
    with pytest.raises(PlanError, match=type(method).__name__) as refusal:
        Quantize(weights=target, method=method)
    named = re.search(r"take weights=(Int\(.*?\))", str(refusal.value))
    assert named is not None
    nearest = eval(named[1], {"Int": Int})
    assert (nearest.per, nearest.group_size) == (target.per, target.group_size)
    assert nearest.high - nearest.low >= min(target.high - target.low, 2)
    Quantize(weights=nearest, method=method)
