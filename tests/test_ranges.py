"""How much of what was observed a grid covers."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import Entropy, Int, MeanSquaredError, MinMax, Percentile, PlanError
from whit.ranges import Histogram, Range


@st.composite
def histograms(draw):
    """What some values look like in a few bins."""
    counts = draw(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 1000)))
    counts[draw(st.integers(0, counts.size - 1))] += 1
    low = draw(st.floats(-1e3, 1e3))
    return Histogram(low=low, high=low + draw(st.floats(0.5, 1e3)), counts=counts)


BYTE = Int(bits=8, symmetric=False, per="tensor")
PERCENTS = st.floats(50, 100, exclude_min=True)


@given(histograms())
def test_min_max_covers_everything(observed):
    assert MinMax().interval(observed, BYTE) == (observed.low, observed.high)


@settings(deadline=None)
@given(histograms(), PERCENTS)
def test_a_percentile_covers_at_least_so_many_values(observed, percent):
    low, high = Percentile(percent=percent).interval(observed, BYTE)
    edges = np.linspace(observed.low, observed.high, observed.counts.size + 1)
    inside = observed.counts[(edges[:-1] >= low) & (edges[1:] <= high)].sum()
    assert inside >= percent / 100 * observed.counts.sum() * (1 - 1e-9)
    assert observed.low <= low <= high <= observed.high


@settings(deadline=None)
@given(histograms(), PERCENTS)
def test_a_percentile_clips_no_more_than_half_of_the_rest_on_either_side(observed, percent):
    low, high = Percentile(percent=percent).interval(observed, BYTE)
    edges = np.linspace(observed.low, observed.high, observed.counts.size + 1)
    tail = observed.counts.sum() * (1 - percent / 100) / 2 * (1 + 1e-9) + 1e-9
    assert observed.counts[edges[1:] <= low].sum() <= tail
    assert observed.counts[edges[:-1] >= high].sum() <= tail


@given(histograms(), PERCENTS, PERCENTS)
def test_a_higher_percentile_covers_no_less(observed, one, other):
    inner, outer = (Percentile(percent=percent).interval(observed, BYTE) for percent in sorted((one, other)))
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]


@pytest.mark.parametrize(
    ("percent", "interval"),
    # 100 values: 2 below 1, 3 from 9 on. A tenth of the rest below and above: 90 percent may clip 5 on either side.
    [(100, (0.0, 10.0)), (96, (1.0, 10.0)), (94, (1.0, 9.0)), (90, (1.0, 9.0))],
)
def test_a_percentile_pinned(percent, interval):
    counts = np.array([2, 50, 0, 0, 0, 0, 0, 0, 45, 3])
    assert Percentile(percent=percent).interval(Histogram(low=0.0, high=10.0, counts=counts), BYTE) == interval


def test_what_lies_outside_is_found_at_its_outer_bins():
    observed = Histogram(low=0.0, high=10.0, counts=np.array([0, 5, 0, 0, 0, 0, 0, 5, 0, 0]))
    assert Percentile(percent=100).interval(observed, BYTE) == (1.0, 8.0)


def test_a_single_value_is_an_interval_of_one_point():
    observed = Histogram(low=3.0, high=3.0, counts=np.array([0, 7]))
    for chosen in (MinMax(), Percentile(), MeanSquaredError(), Entropy()):
        assert chosen.interval(observed, BYTE) == (3.0, 3.0)


# Ranges that look at the grid.

GRIDS = [Int(bits=bits, symmetric=symmetric, per="tensor") for bits in (2, 4, 8, 16) for symmetric in (True, False)]
SEARCHED = [MeanSquaredError(), Entropy(), Entropy(steps=7)]


def histogram(values, bins=2048):
    return Histogram(low=float(values.min()), high=float(values.max()), counts=np.histogram(values, bins)[0])


def squared_error(values, target, interval):
    low, high = (np.full((1, 1), end, np.float32) for end in interval)
    scale, zero_point = target.grid(low, high)
    row = values.astype(np.float32).reshape(1, -1)
    rounded = target.dequantize(target.quantize(row, scale, zero_point), scale, zero_point)
    return float(np.square(rounded.astype(np.float64) - row).mean())


@pytest.mark.parametrize("chosen", SEARCHED, ids=str)
@settings(deadline=None, max_examples=30)
@given(histograms(), st.sampled_from(GRIDS))
def test_searched_ranges_stay_within_what_was_seen(chosen, observed, target):
    low, high = chosen.interval(observed, target)
    assert observed.low <= low <= high <= observed.high


DISTRIBUTIONS = {
    "normal": lambda rng: rng.normal(size=50_000),
    "laplace": lambda rng: rng.laplace(size=50_000),
    "relu": lambda rng: np.maximum(rng.normal(size=50_000), 0),
    "negative": lambda rng: -rng.exponential(size=50_000),
    "mostly negative": lambda rng: np.append(-rng.exponential(size=50_000), 0.5),
    "outlier": lambda rng: np.append(rng.normal(size=50_000), 40.0),
    "far from zero": lambda rng: rng.normal(size=50_000) + 100,
}


@pytest.mark.parametrize("target", [grid for grid in GRIDS if grid.bits <= 8], ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_squared_error_is_less_than_that_of_any_other_range(name, target):
    values = DISTRIBUTIONS[name](np.random.default_rng(0))
    observed = histogram(values)
    least = squared_error(values, target, MeanSquaredError().interval(observed, target))
    others = [MinMax(), Entropy(), *(Percentile(percent=percent) for percent in (99, 99.9, 99.99))]
    for other in others:
        assert least <= squared_error(values, target, other.interval(observed, target)) * 1.02


def test_the_best_end_of_a_normal_distribution_is_the_known_one():
    # Uniform quantizers of a normal distribution end at 2.5 to 2.7 standard deviations with 4 bits, at about 3.9 with 8
    # (Hui and Neuhoff 2001).
    observed = histogram(np.random.default_rng(0).normal(size=1_000_000))
    for bits, least, most in ((4, 2.3, 2.8), (8, 3.7, 4.2)):
        low, high = MeanSquaredError().interval(observed, Int(bits=bits, per="tensor"))
        assert least < max(-low, high) < most


def test_entropy_clips_a_long_tail_and_keeps_a_short_one():
    rng = np.random.default_rng(0)
    tail = histogram(np.append(rng.normal(size=100_000), 80.0))
    assert Entropy().interval(tail, BYTE)[1] < 70
    short = histogram(np.maximum(rng.normal(size=100_000), 0))
    assert Entropy().interval(short, BYTE)[1] > 3.5


@pytest.mark.parametrize("chosen", SEARCHED, ids=str)
def test_grids_of_more_levels_than_bins_cover_all_that_was_seen(chosen):
    observed = histogram(np.random.default_rng(0).normal(size=10_000))
    assert chosen.interval(observed, Int(bits=16, per="tensor")) == (observed.low, observed.high)


@pytest.mark.parametrize("chosen", [MinMax(), Percentile(), *SEARCHED], ids=str)
@pytest.mark.parametrize("target", GRIDS, ids=str)
@pytest.mark.parametrize("ends", [(-1.0, 1e30), (-1e30, 0.0), (0.0, 3e38), (-3e38, 3e38), (0.0, 1e-40)])
def test_outliers_give_a_grid_of_finite_numbers(chosen, target, ends):
    counts = np.zeros(2048, np.int64)
    counts[[0, 1, -1]] = (10_000, 3, 1)
    low, high = chosen.interval(Histogram(low=ends[0], high=ends[1], counts=counts), target)
    assert ends[0] <= low <= high <= ends[1]
    scale, zero_point = target.grid(np.float32(low), np.float32(high))
    assert np.isfinite(scale)
    assert scale > 0
    assert target.low <= zero_point <= target.high


@pytest.mark.parametrize("chosen", [MinMax(), Percentile(), *SEARCHED], ids=str)
@pytest.mark.parametrize("value", [-3.0, 0.0, 7.0])
def test_a_constant_is_its_own_range(chosen, value):
    observed = Histogram(low=value, high=value, counts=np.zeros(2048, np.int64))
    assert chosen.interval(observed, BYTE) == (value, value)


def test_entropy_tries_at_least_one_interval():
    with pytest.raises(PlanError, match=r"Entropy\(steps=0\): try at least one interval"):
        Entropy(steps=0)


@pytest.mark.parametrize("percent", [50, 0, 100.5, -1, float("nan")])
def test_percents_are_above_50_and_at_most_100(percent):
    message = f"Percentile(percent={percent}): cover more than 50 and at most 100 percent"
    with pytest.raises(PlanError, match=re.escape(message)):
        Percentile(percent=percent)


def test_a_range_of_ones_own_has_one_method():
    class Half(Range):
        def interval(self, observed, target):
            return observed.low / 2, observed.high / 2

    assert Half().interval(Histogram(low=-4.0, high=2.0, counts=np.array([1])), BYTE) == (-2.0, 1.0)
