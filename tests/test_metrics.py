"""How good outputs are, and what cannot be judged."""

import re

import numpy as np
import pytest

from whit import DataError, PlanError, Samples
from whit.metrics import Accuracy, MeanAbsoluteError, MeanSquaredError, Metric, divergence, named


def samples(targets):
    targets = np.asarray(targets)
    return Samples((np.zeros((len(targets), 1), np.float32),), targets, name="test data")


def test_accuracy_is_the_share_of_samples_whose_largest_output_is_the_label():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert Accuracy()(outputs, np.array([1, 0, 0, 0])) == 0.75


def test_accuracy_judges_labels_at_every_position():
    outputs = np.zeros((1, 2, 3))
    outputs[0, 0, 2] = outputs[0, 1, 1] = 1
    assert Accuracy()(outputs, np.array([[2, 0]])) == 0.5
    Accuracy().check(outputs, samples([[2, 0]]))


def test_errors_are_means_over_all_outputs():
    outputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([[1.0, 4.0], [0.0, 4.0]])
    assert MeanAbsoluteError()(outputs, targets) == (0 + 2 + 3 + 0) / 4
    assert MeanSquaredError()(outputs, targets) == (0 + 4 + 9 + 0) / 4


def test_errors_do_not_wrap_around_integers():
    outputs, targets = np.array([[1.0]], np.float32), np.array([[200]], np.uint8)
    assert MeanAbsoluteError()(outputs, targets) == 199


@pytest.mark.parametrize(
    ("name", "cls", "higher", "loss"),
    [
        ("accuracy", Accuracy, True, "cross_entropy"),
        ("mae", MeanAbsoluteError, False, "mean_absolute_error"),
        ("mse", MeanSquaredError, False, "mean_squared_error"),
    ],
)
def test_metrics_have_names_a_direction_and_a_loss(name, cls, higher, loss):
    assert named(name) == cls()
    assert (cls.name, cls.higher_is_better, cls.loss) == (name, higher, loss)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(PlanError, match=re.escape("there is no metric 'f1'; choose accuracy, mae, mse, or pass a")):
        named("f1")


def test_a_metric_of_ones_own_is_taken_as_it_is():
    class Bias(Metric):
        name = "bias"
        higher_is_better = False
        loss = "mean_squared_error"

        def __call__(self, outputs, targets):
            return float((outputs - targets).mean())

    own = Bias()
    assert named(own) is own
    assert own(np.array([[3.0]]), np.array([[1.0]])) == 2.0
    own.check(np.zeros((2, 1)), samples([[1.0], [2.0]]))


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((2, 10), [3, 10], "1 of the test data's labels lie outside 0 to 9 (from 3 to 10); the network has 10 classes"),
        ((2, 10), [-1, -2], "2 of the test data's labels lie outside 0 to 9 (from -2 to -1)"),
        ((2, 10), [0.0, 1.0], "targets are float64 of shape () a sample, the outputs have shape (10,)"),
        ((2, 10), [[0], [1]], "accuracy needs integer labels and one output a class"),
        ((2,), [0, 1], "accuracy needs integer labels and one output a class"),
    ],
)
def test_labels_that_accuracy_cannot_judge_are_described(outputs, targets, message):
    with pytest.raises(DataError, match=re.escape(message)):
        Accuracy().check(np.zeros(outputs), samples(targets))


def test_labels_agree_or_do_not_however_far_outputs_are_apart():
    expected = np.array([[[0.0, 1.0], [2.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]]])
    found = np.array([[[0.0, 9.0], [0.1, 0.0]], [[0.0, 1.0], [2.0, 2.1]]])
    assert Accuracy().agree(expected, found, tolerance=0.0).tolist() == [True, False]


def test_values_agree_whose_differences_are_a_share_of_their_standard_deviation():
    expected = np.array([[-1.0, 1.0], [1.0, -1.0]])  # the standard deviation is 1
    found = expected + np.array([[0.0, 0.014], [0.0, 0.0143]])  # 0.01 * sqrt(2) is 0.01414
    assert MeanAbsoluteError().agree(expected, found, tolerance=0.01).tolist() == [True, False]


@pytest.mark.parametrize("metric", [MeanAbsoluteError(), MeanSquaredError()])
def test_errors_need_targets_of_the_outputs_shape(metric):
    metric.check(np.zeros((2, 1)), samples([[1.0], [2.0]]))
    message = f"the test data's targets have shape () a sample, the network's outputs (1,); {metric.name} needs them"
    with pytest.raises(DataError, match=re.escape(message)):
        metric.check(np.zeros((2, 1)), samples([1.0, 2.0]))


def test_shares_diverge_as_the_logits_that_they_are_made_of():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 20, 5)) * 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = divergence("cross_entropy", *logits)
    assert divergence("cross_entropy", *shares) == pytest.approx(expected)
    assert divergence("cross_entropy", logits[0], shares[1]) == pytest.approx(expected)
