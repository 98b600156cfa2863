"""The limit: the posterior-mean estimator of the model that made the sheets.

The estimator is given the answers themselves: the exact responses and times, the difficulties and the
discriminations. An image of a sheet is a noisy drawing of the answers and adds nothing about the ability,
so no reader of images can have a lower expected squared error than this estimator. (The lowest expected
*absolute* error belongs to the posterior median; with 64 items the posterior is close to symmetric and the
two differ by far less than the figures are printed with.)
"""

import numpy as np
from numpy.typing import NDArray

from whit.demo.answer_sheets import DESIGN, IQ_MEAN, IQ_SPREAD, Answers, Floats, TestDesign, item_logits

GRID_RANGE = 6.0
GRID_POINTS = 241


def posterior_mean_iq(answers: Answers, design: TestDesign = DESIGN, *, chunk: int = 4096) -> Floats:
    """Expected IQ of each test-taker given their responses and response times.

    The ability's posterior is summed over a grid of 241 abilities from -6 to 6. The answers enter the
    log-likelihood linearly, so a chunk of test-takers costs two matrix products.

    Args:
        answers: what `sit_test` returned; its `iq` is not looked at.
        design: the design under which the answers were given.
        chunk: test-takers handled at once; it bounds memory and does not change the result.

    Returns:
        float32 [N, 1], in IQ points.
    """
    grid, weights = _posterior_terms(design)
    count = len(answers.correct)
    abilities = np.empty((count, 1), dtype=np.float64)
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        evidence = np.concatenate([answers.correct[rows], answers.log_time[rows]], axis=1)
        abilities[rows, 0] = _mean_over_grid(evidence.astype(np.float64) @ weights[1:] + weights[0], grid)
    return (IQ_MEAN + IQ_SPREAD * abilities).astype(np.float32)


def mean_absolute_error(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Mean of `|predicted - actual|` over all entries, in their unit (here IQ points).

    Raises:
        ValueError: the shapes differ; broadcasting [N] against [N, 1] would compare everyone with everyone.
    """
    if predicted.shape != actual.shape:
        raise ValueError(
            f"predictions of shape {predicted.shape} cannot be compared with targets of shape {actual.shape}"
        )
    return float(np.mean(np.abs(predicted.astype(np.float64) - actual.astype(np.float64))))


def _posterior_terms(design: TestDesign) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The grid [G] and the weights [1 + 64 + 64, G] of `1`, the responses and the log times.

    Up to a constant per test-taker, with `l` the item's logit at a grid point:

        log prior                  = -ability**2 / 2
        log p(correct)             = correct * l - log(1 + exp(l))
        log p(log_time)            = -(log_time * slope * l + (slope * l)**2 / 2) / spread**2
    """
    grid = np.linspace(-GRID_RANGE, GRID_RANGE, GRID_POINTS)
    logits = item_logits(grid, design).astype(np.float64).T
    precision = design.time_spread**-2
    by_time = -precision * design.time_slope * logits
    common = -np.logaddexp(0.0, logits) - 0.5 * precision * (design.time_slope * logits) ** 2
    constant = common.sum(axis=0) - 0.5 * grid**2
    return grid, np.concatenate([constant[None], logits, by_time])


def _mean_over_grid(log_posterior: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of `grid` [G] under each row of unnormalised log-probabilities [N, G]; returns [N]."""
    density = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    return density @ grid / density.sum(axis=1)
