"""The price of a bit for a size: close below the target, whatever the curve, or an error that names the smallest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit.decide.pricing import reach
from whit.errors import PlanError


@given(st.floats(-0.6, -0.2), st.integers(2_000, 500_000), st.floats(1e-12, 1e-3))
def test_a_power_law_is_reached_from_below(slope: float, target: int, first: float) -> None:
    def attempt(price: float) -> tuple[int, int]:
        size = int(1000 + 50 * price**slope)
        return size, size

    assert 0.95 * target <= reach(target, first, attempt) <= target


def test_what_no_price_reaches_is_said_with_the_smallest() -> None:
    with pytest.raises(PlanError, match=r"target_bytes=100.*has 800 bytes"):
        reach(100, 1.0, lambda price: (None, 800))


def test_a_file_that_cannot_grow_to_the_target_is_taken() -> None:
    assert reach(1000, 1.0, lambda price: ("all", 300)) == "all"
