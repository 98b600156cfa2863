"""Two sets of outputs agree, sample by sample, or the network is not delivered."""

import numpy as np
import pytest

from whit import ParityError
from whit.measure import agreement, latencies, parity
from whit.metrics import Accuracy, MeanSquaredError

VALUES = np.tile(np.array([-1.0, 1.0]), (200, 8))  # their standard deviation is 1


@pytest.mark.parametrize(("rounded", "tolerance"), [(False, 0.01), (True, 0.1)])
def test_values_agree_within_a_share_of_their_spread(rounded: bool, tolerance: float) -> None:
    near = VALUES + 0.99 * tolerance
    assert parity(VALUES, near, MeanSquaredError(), rounded=rounded).agreement == 1
    far = VALUES.copy()
    far[:3] += 1.01 * tolerance
    with pytest.raises(ParityError, match="disagree with the framework's on 3 of 200"):
        parity(VALUES, far, MeanSquaredError(), rounded=rounded)


def test_the_root_mean_square_of_a_sample_counts_not_its_largest_difference() -> None:
    found = VALUES.copy()
    found[:, 0] += 0.039  # 0.039 / sqrt(16) < 0.01
    assert agreement(VALUES, found, MeanSquaredError()).agreement == 1
    found[:, 0] += 0.002
    assert agreement(VALUES, found, MeanSquaredError()).agreement == 0


def test_labels_agree_where_the_largest_output_is_the_same_in_every_place() -> None:
    expected = np.zeros((100, 2, 3))
    expected[..., 1] = 1
    found = expected * 7 + 5
    found[:2, 1] = expected[:2, 1, ::-1] * [[2, 1, 0]]
    assert agreement(expected, found, Accuracy()).agreement == 1
    found[:2, 1] = [2, 1, 0]
    assert agreement(expected, found, Accuracy()).agreement == 0.98
    with pytest.raises(ParityError, match="2 of 100"):
        parity(expected, found, Accuracy(), rounded=True)


def test_outputs_that_are_not_numbers_never_agree() -> None:
    found = np.full_like(VALUES, np.nan)
    with pytest.raises(ParityError, match="200 of 200"):
        parity(VALUES, found, MeanSquaredError(), rounded=True)


def test_each_round_calls_every_session_once_in_an_order_of_its_own() -> None:
    called: list[int] = []
    sessions = [lambda x, place=place: called.append(place) or x for place in range(3)]
    times = latencies(sessions, (VALUES,), seconds=0.0)
    assert len(times) == 3
    rounds = np.reshape(called[5 * 3 :], (30, 3))  # after five calls of each to warm up
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len(np.unique(rounds, axis=0)) == 6
