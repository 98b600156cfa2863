"""The limit: the posterior-mean estimator of the very model that made the sheets.

It is given the answers themselves (exact responses and times) with all difficulties and discriminations.
A sheet is a noisy drawing of the answers and says nothing more about the ability, so no reader of sheets
has a lower expected squared error. For the absolute error the best estimator is the posterior's median;
after 64 items the posterior is so close to symmetric that the mean costs next to nothing against it.
"""

import numpy as np
from numpy.typing import NDArray

from whit.demo.answer_sheets import EXAM, IQ_MEAN, IQ_SPREAD, Answers, Exam, Floats, item_logits
from whit.errors import DataError

__all__ = ["mean_absolute_error", "posterior_mean_iq"]

ABILITIES = np.linspace(-6.0, 6.0, 241)


def posterior_mean_iq(answers: Answers, exam: Exam = EXAM, *, chunk: int = 4096) -> Floats:
    """The expected IQ of each test-taker, given their responses and times.

    The posterior is summed over a grid of 241 abilities from -6 to 6 standard deviations. Its logarithm is
    linear in the answers, so a chunk of test-takers costs one matrix product.

    Args:
        answers: What ``sit_exam`` returned; its ``iq`` is not looked at.
        exam: The exam that was sat.
        chunk: How many test-takers to handle at once; it bounds the memory and changes no result.

    Returns:
        float32 [N, 1], in IQ points.
    """
    by_evidence, constant = _log_posterior_terms(exam)
    ability = np.empty((len(answers.correct), 1))
    for start in range(0, len(ability), chunk):
        rows = slice(start, start + chunk)
        evidence = np.concatenate([answers.correct[rows], answers.log_time[rows]], axis=1, dtype=np.float64)
        ability[rows, 0] = _mean_ability(evidence @ by_evidence + constant)
    return (IQ_MEAN + IQ_SPREAD * ability).astype(np.float32)


def mean_absolute_error(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """The mean of ``|predicted - actual|``, in their own unit.

    Raises:
        DataError: The shapes differ; [N] against [N, 1] would compare everybody with everybody.

    >>> mean_absolute_error(np.array([[99.0], [104.0]]), np.array([[100.0], [100.0]]))
    2.5
    """
    if predicted.shape != actual.shape:
        raise DataError(f"predictions of shape {predicted.shape} cannot be judged by targets of shape {actual.shape}")
    return float(np.abs(predicted.astype(np.float64) - actual).mean())


def _log_posterior_terms(exam: Exam) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [64 + 64, G] of responses and log-times, and constants [G], over the grid of abilities.

    With ``l`` the logit of an item, and up to what is the same for all abilities::

        log prior         = -ability**2 / 2
        log p(correct)    = correct * l - log(1 + exp(l))
        log p(log_time)   = -(log_time * slope * l + (slope * l)**2 / 2) / spread**2
    """
    logits = item_logits(ABILITIES, exam).astype(np.float64).T
    expected_log_time = -exam.time_slope * logits
    precision = exam.time_spread**-2
    constant = -np.logaddexp(0.0, logits) - precision * expected_log_time**2 / 2
    by_evidence = np.concatenate([logits, precision * expected_log_time])
    return by_evidence, constant.sum(axis=0) - ABILITIES**2 / 2


def _mean_ability(log_posterior: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean [N] of the abilities under log-probabilities [N, G] that need not sum to 1."""
    posterior = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    return posterior @ ABILITIES / posterior.sum(axis=1)
