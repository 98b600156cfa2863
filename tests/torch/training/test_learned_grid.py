"""Learned grids of activations: the core's values, the gradients of LSQ and LSQ+, and what training records."""

import numpy as np
import pytest
import torch
from torch import Tensor

from whit.formats import Int
from whit.ledger import RoundedActivation
from whit.torch.fake_quantize import fake_quantize
from whit.torch.training.learned_grid import LearnedGrid

TARGETS = [Int(bits=bits, symmetric=symmetric, per="tensor") for bits in (2, 3, 4, 8) for symmetric in (True, False)]


def grid(target: Int, scale: float = 0.37, zero_point: int | None = None) -> LearnedGrid:
    zero = target.low + (target.high - target.low) // 3 if zero_point is None else zero_point
    zero = 0 if target.symmetric else zero
    return LearnedGrid(
        RoundedActivation(
            tensor="x", target=target, scale=np.asarray(scale, np.float32), zero_point=np.asarray(zero, np.int32)
        )
    )


def spread(target: Int, count: int = 12001) -> Tensor:
    """Values evenly over one and a half times the grid, at either side; no value lies where codes change."""
    width = 0.37 * (target.high - target.low)
    return torch.linspace(-1.5 * width, 1.5 * width, count)[:, None] + 1e-4


def step_of(learned: LearnedGrid) -> float:
    return float(learned.log_scale.detach().exp())


def published(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """The derivative of the rounded value by the step, as equation 3 of Esser et al. 2020 has it."""
    q = x / scale
    inside = (q > low) & (q < high)
    return torch.where(inside, q.round() - q, torch.where(q <= low, float(low), float(high)))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_values_are_those_that_are_rounded_outside_of_training(target: Int) -> None:
    learned = grid(target)
    x = spread(target)
    zero = learned.zero_point.detach().to(torch.int32)
    expected = fake_quantize(x, learned.log_scale.detach().exp(), zero, 0, target.low, target.high)
    assert torch.equal(learned.round(x).detach(), expected)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_gradients_are_those_of_the_papers(target: Int) -> None:
    learned = grid(target)
    x = spread(target).requires_grad_()
    weights = torch.linspace(-1, 2, x.numel())[:, None]
    (learned.round(x) * weights).sum().backward()
    scale, zero = step_of(learned), int(learned.zero_point)
    low, high = target.low - zero, target.high - zero
    inside = ((x > low * scale) & (x < high * scale)).float()
    assert x.grad is not None
    assert torch.equal(x.grad, weights * inside)
    assert learned.log_scale.grad is not None
    expected = float((published(x.detach(), scale, low, high).double() * weights).sum()) * scale
    assert float(learned.log_scale.grad) == pytest.approx(expected, rel=1e-4)
    if learned.moves:
        assert learned.zero_point.grad is not None
        assert float(learned.zero_point.grad) == pytest.approx(-scale * float((weights * (1 - inside)).sum()), rel=1e-4)


@pytest.mark.parametrize("by_layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_how_images_lie_in_memory_changes_nothing(by_layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x, by_y = torch.randn(2, 2, 3, 4, 5, generator=generator)
    usual, other = (grid(Int(bits=3, per="tensor")) for _ in range(2))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    x.requires_grad_()
    y = other.round(last)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, usual.round(x))
    y.backward(by_y.contiguous(memory_format=by_layout))
    usual.round(x).backward(by_y)
    assert last.grad is not None
    assert x.grad is not None
    assert torch.equal(last.grad, x.grad)
    torch.testing.assert_close(other.log_scale.grad, usual.log_scale.grad)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_gradients_are_the_slopes_of_what_rounding_gives_on_average(target: Int) -> None:
    # Rounded after a shift by chance of up to half a step, a value is on average itself within the grid, and the end of
    # the grid beyond it. Values spread evenly over whole steps average like that, without any chance.
    learned = grid(target)
    x = spread(target, count=60001)
    learned.round(x).sum().backward()
    scale, zero = step_of(learned), float(learned.zero_point.detach())

    def smooth(scale: float, zero: float) -> float:
        return float(((x.double() / scale + zero).clamp(target.low, target.high) - zero).sum() * scale)

    tiny = 1e-4
    by_log_scale = (smooth(scale * (1 + tiny), zero) - smooth(scale * (1 - tiny), zero)) / (2 * tiny)
    found = learned.log_scale.grad
    assert found is not None
    assert float(found) == pytest.approx(by_log_scale, rel=2e-3, abs=5e-3 * scale * x.numel())
    if learned.moves:
        by_zero = (smooth(scale, zero + tiny) - smooth(scale, zero - tiny)) / (2 * tiny)
        assert learned.zero_point.grad is not None
        assert float(learned.zero_point.grad) == pytest.approx(by_zero, rel=2e-3, abs=5e-3 * scale * x.numel())


def test_a_zero_point_moves_only_where_values_below_zero_were_seen() -> None:
    unsigned = Int(bits=4, symmetric=False, per="tensor")
    assert not grid(unsigned, zero_point=0).moves
    assert grid(unsigned, zero_point=3).moves
    assert not grid(Int(bits=4, per="tensor")).moves


def test_a_zero_point_is_whole_and_a_code_whatever_training_makes_of_it() -> None:
    target = Int(bits=3, symmetric=False, per="tensor")
    for latent, code in ((2.4, 2), (2.6, 3), (-4.0, 0), (99.0, 7)):
        learned = grid(target)
        with torch.no_grad():
            learned.zero_point.fill_(latent)
        decision = learned.decided(brief=False)
        assert decision.zero_point.dtype == np.int32
        assert int(decision.zero_point) == code
        x = torch.tensor([[-9.0, 0.0, 9.0]])
        ends = torch.tensor([[float(0 - code), 0.0, float(7 - code)]]) * step_of(learned)
        assert torch.equal(learned.round(x).detach(), ends)


def test_the_ratio_of_lsq_makes_a_step_of_the_logarithm_what_a_step_of_the_scale_would_be() -> None:
    target = Int(bits=4, symmetric=False, per="tensor")
    learned = grid(target, scale=0.05, zero_point=0)
    x = torch.randn(8, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    learned.round(x).square().sum().backward()
    assert learned.log_scale.grad is not None
    scale = step_of(learned)
    by_scale = float(learned.log_scale.grad) / scale
    learned.slow()
    rate = 1e-9
    moved = scale * np.exp(-rate * float(learned.log_scale.grad))
    # Section 2.2 of Esser et al. 2020: 1 / sqrt(features * largest code), of a sample's 150 features.
    assert moved - scale == pytest.approx(-rate * by_scale / np.sqrt(150 * 15), rel=1e-3)


def test_brief_scales_have_eight_significant_bits() -> None:
    learned = grid(Int(bits=4, per="tensor"), scale=0.123456)
    assert float(learned.decided(brief=True).scale) == 0.12353515625  # 253 / 2048
    assert float(learned.decided(brief=False).scale) == pytest.approx(0.123456, rel=1e-6)
