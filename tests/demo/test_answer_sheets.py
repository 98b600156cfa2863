import numpy as np
import pytest

from whit.demo.answer_sheets import (
    EXAM,
    Answers,
    Exam,
    Floats,
    draw_sheets,
    generate,
    generate_batches,
    item_logits,
    item_parameters,
    logistic,
    sit_exam,
)
from whit.errors import DataError

PEOPLE = 20_000
NOISELESS = Exam(pixel_noise=0.0)


@pytest.fixture(scope="module")
def answers() -> Answers:
    return sit_exam(PEOPLE, seed=3)


def expectation(values: Floats, abilities: Floats) -> np.ndarray:
    """The mean of values [G, 64] at abilities [G] over the normal population, by summation."""
    density = np.exp(-(abilities**2) / 2)
    return density @ values / density.sum()


def test_sheets_are_float32_images_with_one_iq_each():
    sheets, iq = generate(5, seed=1)
    assert (sheets.shape, sheets.dtype) == ((5, 3, 32, 32), np.float32)
    assert (iq.shape, iq.dtype) == ((5, 1), np.float32)


def test_the_same_seed_gives_the_same_sheets_and_another_seed_others():
    first, again, other = generate(4, seed=1), generate(4, seed=1), generate(4, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_sheets_show_the_answers_that_the_same_seed_gives():
    sheets, iq = generate(6, seed=4, exam=NOISELESS)
    answers = sit_exam(6, seed=4)
    assert np.array_equal(iq, answers.iq)
    cells = sheets.reshape(6, 3, 8, 4, 8, 4)
    assert np.array_equal(cells, np.broadcast_to(cells[:, :, :, :1, :, :1], cells.shape))
    shades = cells[:, :, :, 0, :, 0].reshape(6, 3, 64)
    minutes = np.exp(answers.log_time)
    np.testing.assert_array_equal(shades[:, 0], answers.correct)
    np.testing.assert_allclose(shades[:, 1], minutes / (minutes + 1), rtol=1e-5)
    np.testing.assert_allclose(shades[:, 2], np.tile(1 / (1 + np.exp(-item_parameters()[0])), (6, 1)), rtol=1e-5)


def test_pixel_noise_is_normal_with_the_given_spread_and_independent_between_pixels():
    answers = sit_exam(200, seed=5)
    noise = draw_sheets(answers, seed=5) - draw_sheets(answers, seed=5, exam=NOISELESS)
    assert noise.mean() == pytest.approx(0, abs=5 * EXAM.pixel_noise / np.sqrt(noise.size))
    assert noise.std() == pytest.approx(EXAM.pixel_noise, rel=0.01)
    assert np.mean(noise[..., 1:] * noise[..., :-1]) == pytest.approx(0, abs=5e-5)


def test_iqs_have_mean_100_and_standard_deviation_15(answers: Answers):
    assert answers.iq.mean() == pytest.approx(100, abs=5 * 15 / np.sqrt(PEOPLE))
    assert answers.iq.std() == pytest.approx(15, abs=5 * 15 / np.sqrt(2 * PEOPLE))


def test_items_are_solved_as_often_as_the_model_says(answers: Answers):
    abilities = np.linspace(-6, 6, 241, dtype=np.float32)
    expected = expectation(logistic(item_logits(abilities)), abilities)
    np.testing.assert_allclose(answers.correct.mean(axis=0), expected, atol=5 * 0.5 / np.sqrt(PEOPLE))


def test_log_times_have_the_mean_and_spread_that_the_model_says(answers: Answers):
    difficulty, discrimination = item_parameters()
    spread = np.hypot(EXAM.time_slope * discrimination, EXAM.time_spread)
    expected = EXAM.time_slope * discrimination * difficulty
    np.testing.assert_array_less(np.abs(answers.log_time.mean(axis=0) - expected), 5 * spread / np.sqrt(PEOPLE))
    np.testing.assert_allclose(answers.log_time.std(axis=0), spread, rtol=5 / np.sqrt(2 * PEOPLE))


def test_the_item_seed_alone_fixes_the_items():
    assert np.array_equal(item_parameters(), item_parameters(Exam(time_spread=2.0, pixel_noise=0.5)))
    assert not np.array_equal(item_parameters(), item_parameters(Exam(item_seed=65)))
    assert (item_parameters()[1] > 0).all()


def test_every_batch_has_new_people_and_can_be_made_again():
    batches, again = [list(generate_batches(2, 3, seed=7)) for _ in range(2)]
    assert not np.array_equal(batches[0][1], batches[1][1])
    for (sheets, iq), (same_sheets, same_iq) in zip(batches, again, strict=True):
        assert np.array_equal(sheets, same_sheets)
        assert np.array_equal(iq, same_iq)


def test_logistic_does_not_overflow():
    values = logistic(np.array([-1000, 0, 1000], np.float32))
    np.testing.assert_array_equal(values, [0, 0.5, 1])
    assert values.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_noise": -0.1}, r"Exam\(pixel_noise=-0.1\): standard deviations are 0 or more"),
        ({"difficulty_spread": float("nan")}, r"Exam\(difficulty_spread=nan\)"),
        ({"time_spread": 0.0}, r"Exam\(time_spread=0.0\): times must vary"),
    ],
)
def test_an_impossible_exam_is_refused(change: dict[str, float], message: str):
    with pytest.raises(DataError, match=message):
        Exam(**change)


def test_an_exam_that_nobody_sits_is_refused():
    with pytest.raises(DataError, match="count is 1 or more, not 0"):
        generate(0, seed=1)
