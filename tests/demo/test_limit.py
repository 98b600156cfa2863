import numpy as np
import pytest

from whit.demo.answer_sheets import Answers, Exam, draw_sheets, item_logits, item_parameters, logistic, sit_exam
from whit.demo.limit import mean_absolute_error, posterior_mean_iq
from whit.errors import DataError


@pytest.fixture(scope="module")
def answers() -> Answers:
    return sit_exam(5000, seed=11)


def answered(correct: np.ndarray, log_time: np.ndarray) -> Answers:
    unknown = np.full((len(correct), 1), np.nan, np.float32)
    return Answers(iq=unknown, correct=correct.astype(np.float32), log_time=log_time.astype(np.float32))


def test_the_posterior_mean_is_one_iq_for_each_and_independent_of_the_chunks(answers: Answers):
    whole = posterior_mean_iq(answers)
    assert (whole.shape, whole.dtype) == ((5000, 1), np.float32)
    np.testing.assert_allclose(posterior_mean_iq(answers, chunk=777), whole, atol=1e-4)


def test_it_agrees_with_bayes_rule_written_out_for_one_person(answers: Answers):
    ability = np.linspace(-5, 5, 4001)
    p = logistic(item_logits(ability)).astype(np.float64)
    likelihood = np.where(answers.correct[0] == 1, p, 1 - p).prod(axis=1)
    times = np.exp(-(((answers.log_time[0] + 0.15 * item_logits(ability)) / 0.6) ** 2) / 2).prod(axis=1)
    posterior = np.exp(-(ability**2) / 2) * likelihood * times
    expected = 100 + 15 * (posterior @ ability) / posterior.sum()
    assert posterior_mean_iq(answers)[0, 0] == pytest.approx(expected, abs=1e-3)


def test_times_that_are_almost_exact_give_the_ability_away():
    exam = Exam(time_spread=0.01)
    ability = np.array([-2.0, -0.5, 0.0, 1.0, 2.5])
    logits = item_logits(ability, exam)
    # The responses are the likeliest, the times are exactly as expected.
    iq = posterior_mean_iq(answered(logits > 0, -exam.time_slope * logits), exam)
    np.testing.assert_allclose(iq[:, 0], 100 + 15 * ability, atol=0.3)


def test_without_information_it_falls_back_on_the_population():
    exam = Exam(time_slope=0.0, difficulty_spread=0.0, discrimination_spread=0.0)
    half = np.tile(np.arange(64) % 2, (1, 1))
    assert posterior_mean_iq(answered(half, np.zeros((1, 64))), exam)[0, 0] == pytest.approx(100, abs=1e-3)


def test_all_right_stands_above_all_wrong_and_both_within_the_population():
    logits = item_logits(np.zeros(2))
    iq = posterior_mean_iq(answered(np.stack([np.zeros(64), np.ones(64)]), -0.15 * logits))
    assert 40 < iq[0, 0] < 85
    assert 115 < iq[1, 0] < 160


def test_it_is_calibrated_its_error_does_not_depend_on_what_it_says(answers: Answers):
    predicted = posterior_mean_iq(answers)
    slope = np.polyfit(predicted[:, 0], answers.iq[:, 0], 1)[0]
    assert slope == pytest.approx(1, abs=0.02)


def test_it_beats_regressions_on_sums_on_weighted_sums_and_on_the_image(answers: Answers):
    _, discrimination = item_parameters()
    sheets = draw_sheets(answers, seed=11)
    readers = {
        "number right": [answers.correct.sum(axis=1)],
        "total time": [np.exp(answers.log_time).sum(axis=1)],
        "number right and time": [answers.correct.sum(axis=1), answers.log_time.sum(axis=1)],
        "weighted number right": [answers.correct @ discrimination],
        "mean pixels": list(sheets.mean(axis=(2, 3)).T[:2]),
    }
    limit = mean_absolute_error(posterior_mean_iq(answers), answers.iq)
    for name, features in readers.items():
        columns = np.stack([np.ones(5000), *features, *(np.square(one) for one in features)], axis=1)
        fitted = columns @ np.linalg.lstsq(columns, answers.iq, rcond=None)[0]
        assert mean_absolute_error(fitted, answers.iq) > 1.02 * limit, name


def test_errors_of_unequal_shapes_are_refused():
    with pytest.raises(DataError, match=r"\(3,\) cannot be judged by targets of shape \(3, 1\)"):
        mean_absolute_error(np.zeros(3), np.zeros((3, 1)))
