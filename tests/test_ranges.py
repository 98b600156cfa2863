"""How much of what was observed a grid covers."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import Int, MinMax, Percentile, PlanError
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
    for chosen in (MinMax(), Percentile()):
        assert chosen.interval(observed, BYTE) == (3.0, 3.0)


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
