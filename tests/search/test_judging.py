"""What trials cost: against the original, or against a control that has forgotten as much."""

import pytest

from whit.metrics import Accuracy, MeanAbsoluteError
from whit.plan import Plan
from whit.search.candidates import Candidate
from whit.search.judging import Judge
from whit.search.trials import Outcome, Round, Trial
from whit.steps import FoldBatchNorm


def trial(quality, failure=None, **candidate):
    outcome = Outcome(seconds=1.0, quality=quality, bytes=10, macs=20, latency_ms=0.5, failure=failure)
    return Trial(candidate=Candidate(**candidate), plan=Plan(FoldBatchNorm()), hash="", outcome=outcome)


def judge(*trials, metric=None, quality=0.99):
    return Judge.of(metric or Accuracy(), quality, [Round(name="", seconds=0.0, trials=trials)])


def test_without_a_control_everything_is_compared_with_the_original():
    assert judge().spent(trial(0.97, epochs=1.0)).drop == 0.02
    spent = judge().spent(trial(0.97))
    assert (spent.bytes, spent.macs, spent.latency_ms) == (10, 20, 0.5)
    assert spent.relative_drop == pytest.approx(0.02 / 0.99)


def test_what_was_trained_is_compared_with_the_control_and_what_was_not_is_not():
    found = judge(trial(0.95, epochs=1.0, control=True))
    assert found.spent(trial(0.94, epochs=1.0)).drop == 0.01
    assert found.spent(trial(0.94)).drop == 0.05


def test_what_a_control_lost_is_less_for_longer_trainings():
    found = judge(trial(0.95, epochs=1.0, control=True))
    assert found.spent(trial(0.94, epochs=4.0)).drop == pytest.approx(0.97 - 0.94)  # half of 0.04 after four times
    nearer = judge(trial(0.95, epochs=1.0, control=True), trial(0.96, epochs=4.0, control=True))
    assert nearer.spent(trial(0.94, epochs=4.0)).drop == pytest.approx(0.96 - 0.94)


def test_a_control_that_is_better_than_the_original_does_not_count_for_more():
    assert judge(trial(0.995, epochs=1.0, control=True)).spent(trial(0.98, epochs=1.0)).drop == 0.01


def test_errors_are_better_when_they_are_lower():
    found = judge(trial(2.2, epochs=1.0, control=True), metric=MeanAbsoluteError(), quality=2.0)
    assert found.spent(trial(2.5, epochs=1.0)).drop == pytest.approx(0.3)
    assert found.spent(trial(2.5)).relative_drop == pytest.approx(0.25)


def test_what_failed_costs_nothing_and_is_no_control():
    assert judge().spent(trial(0.0, failure="no")) is None
    assert judge(trial(0.0, failure="no", epochs=1.0, control=True)).controls == ()
