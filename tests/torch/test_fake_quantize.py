"""Fake quantization: the core's numbers bit for bit, ONNX's grid, and a straight-through gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whit import _core, formats
from whit.formats import Codebook, Format, Int
from whit.ledger import Rounded
from whit.quantizers import Nearest
from whit.torch.fake_quantize import fake_quantize
from whit.torch.training.rounded import RoundedWeight

FORMATS = [
    Int(bits=bits, symmetric=symmetric, per=per, group_size=size)  # type: ignore[arg-type]
    for bits in (2, 3, 4, 8)
    for symmetric in (True, False)
    for per, size in (("tensor", None), ("channel", None), ("group", 4))
]


@pytest.mark.parametrize("target", FORMATS, ids=str)
def test_weights_are_rounded_bit_for_bit_as_the_core_rounds_them(target: Int) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 3, 3)).astype(np.float32)
    codes, scale, zero_point, _ = Nearest().quantize(weights.reshape(6, -1), target)
    expected = target.dequantize(codes, scale, zero_point).reshape(weights.shape)
    rows = [torch.from_numpy(x).expand(6, -1).contiguous() for x in (scale, zero_point)]
    found = fake_quantize(torch.from_numpy(weights), *rows, target.block(9), target.low, target.high)
    np.testing.assert_array_equal(found.numpy(), expected)


LEVELS = [
    Int(bits=1),
    Int(bits=1, per="group", group_size=4),
    Int(bits=16),
    formats.FP16,
    formats.FP8_E4M3,
    formats.MXFP6_E3M2,
    replace(formats.NVFP4, group_size=4),
    Codebook(k=5),
    Codebook(k=5, per="group", group_size=4),
]


@pytest.mark.parametrize("target", LEVELS, ids=str)
def test_rounded_weights_are_those_of_the_format_bit_for_bit(target: Format) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(6, 3, 3)).astype(np.float32)
    found = Nearest().quantize(weights.reshape(6, -1), target)
    rounder = RoundedWeight(Rounded.of("w", target, weights.shape, found), None)
    np.testing.assert_array_equal(rounder.values().detach().numpy(), rounder.decision.values())
    spread = np.repeat(found.scale, target.block(9), axis=1)[:, :9]
    ties = target.levels(found.codebook)[: weights.size - 4]
    ties = (ties[:-1] + ties[1:])[: weights.size] / 2
    for given_weights in (weights, 3 * weights, np.zeros_like(weights), np.resize(ties, weights.shape)):
        codes = target.quantize(given_weights.reshape(6, -1), *found[1:])
        expected = target.dequantize(codes, *found[1:]).reshape(weights.shape)
        rounder.latent = torch.from_numpy(given_weights.reshape(6, -1) / spread)
        np.testing.assert_array_equal(rounder.values().numpy(), expected)
        np.testing.assert_array_equal(rounder.decided(brief=False).codes, codes)


def test_the_gradient_of_levels_passes_up_to_half_a_step_beyond_the_last() -> None:
    target = replace(formats.FP4_E2M1, per="tensor")
    found = Nearest().quantize(np.array([[6.0, 1.0, 0.0, 0.0]], np.float32), target)
    rounder = RoundedWeight(Rounded.of("w", target, (1, 4), found), None)
    x = rounder.latent = torch.tensor([[-9.0, -6.9, 0.3, 7.1]], requires_grad=True)
    rounder.values().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1, 0]]


def test_the_price_of_bits_is_a_slope_between_levels() -> None:
    target = replace(formats.FP4_E2M1, per="tensor")
    found = Nearest().quantize(np.array([[6.0, 1.5, 4.0, -1.0]], np.float32), target)
    rounder = RoundedWeight(Rounded.of("w", target, (1, 4), found), None)
    rounder.look()
    up, down = _core.bit_slopes(found.codes)[:, 0]
    # The neighbours on these sides: 4 below 6, 2 above 1.5, 6 above 4, and -1.5 below -1.
    rounder.latent = torch.tensor([[5.9, 1.6, 4.1, -1.1]], requires_grad=True)
    rounder.bits().backward()
    assert rounder.latent.grad is not None
    expected = [down[0] / 2, up[1] / 0.5, up[2] / 2, down[3] / 0.5]
    np.testing.assert_allclose(rounder.latent.grad[0].numpy(), expected, rtol=1e-6)


def test_binary_codes_have_no_price() -> None:
    found = Nearest().quantize(np.array([[1.0, -1.0]], np.float32), Int(bits=1))
    rounder = RoundedWeight(Rounded.of("w", Int(bits=1), (1, 2), found), None)
    rounder.look()
    rounder.bits().backward()
    assert rounder.latent.grad is not None
    assert not rounder.latent.grad.any()


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50), st.floats(0.015625, 10, width=32))
def test_values_of_the_grid_stay_where_they_are(values: list[float], scale: float) -> None:
    x = torch.tensor(values)
    step, zero = torch.tensor(scale), torch.tensor(3, dtype=torch.int32)
    once = fake_quantize(x, step, zero, 0, 0, 255)
    assert torch.equal(fake_quantize(once, step, zero, 0, 0, 255), once)


def test_ties_go_to_the_even_code_and_the_ends_are_clamped() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, 300.0, -300.0])
    rounded = fake_quantize(x, torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), 0, -127, 127)
    assert rounded.tolist() == [0, 2, 2, 0, 127, -127]


def test_the_gradient_passes_on_the_grid_and_stops_where_values_are_clamped() -> None:
    x = torch.tensor([-9.0, -1.2, 0.3, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), 0, -7, 7).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_the_operator_keeps_its_promises_to_torch() -> None:
    arguments = (torch.randn(4, 6, requires_grad=True), torch.rand(4, 2) + 0.1, torch.zeros(4, 2, dtype=torch.int32))
    torch.library.opcheck(
        torch.ops.whit.fake_quantize.default, (*arguments, 3, -7, 7), test_utils=("test_schema", "test_faketensor")
    )
