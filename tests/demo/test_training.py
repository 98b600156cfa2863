from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from whit.demo.answer_sheets import generate, generate_batches
from whit.demo.limit import mean_absolute_error
from whit.demo.network import make_network
from whit.demo.training import predict, train
from whit.errors import DataError
from whit.progress import Progress


class Counting(Progress):
    """Remembers the bars that it was asked for and how far each went."""

    def __init__(self) -> None:
        self.bars: list[list[float]] = []

    @contextmanager
    def bar(self, what: str, total: float) -> Iterator["Counting"]:
        self.bars.append([total, 0])
        yield self

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.bars[-1][1] += steps


def test_a_short_training_is_far_better_than_guessing_the_mean():
    sheets, iq = generate(500, seed=1)
    network = make_network(width=0.1)
    guess = mean_absolute_error(np.full_like(iq, iq.mean()), iq)
    progress = Counting()
    train(network, generate_batches(60, 64, seed=2), steps=60, learning_rate=1e-2, progress=progress)
    assert mean_absolute_error(predict(network, sheets), iq) < 0.5 * guess
    assert not network.training
    assert progress.bars == [[60, 60]]


def test_equal_trainings_give_equal_networks():
    networks = [make_network(width=0.05) for _ in range(2)]
    for network in networks:
        train(network, generate_batches(3, 8, seed=3), steps=3, learning_rate=1e-3)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_too_few_batches_are_an_error():
    with pytest.raises(DataError, match="3 steps of training need as many batches, but there were 2"):
        train(make_network(width=0.05), generate_batches(2, 8, seed=3), steps=3, learning_rate=1e-3)


def test_iqs_that_do_not_fit_the_sheets_are_an_error():
    sheets, iq = generate(4, seed=1)
    with pytest.raises(DataError, match=r"4 sheets need IQs of shape \(4, 1\), these have \(4,\)"):
        train(make_network(width=0.05), [(sheets, iq[:, 0])], steps=1, learning_rate=1e-3)


def test_predictions_do_not_depend_on_batches_and_leave_the_mode_as_it_was():
    sheets, _ = generate(10, seed=1)
    network = make_network(width=0.1).train()
    in_batches = predict(network, sheets, batch_size=3)
    assert network.training
    assert (in_batches.shape, in_batches.dtype) == ((10, 1), np.float32)
    np.testing.assert_allclose(in_batches, predict(network, sheets), atol=1e-3)
