"""Simulated IQ tests: who takes them, what they answer, and the image of their answer sheet.

The model is a two-parameter logistic test (Birnbaum, in Lord & Novick 1968, chapter 17) whose response
times follow the same logit (Thissen 1983, without a person's own pace). For test-taker ``i`` and item ``j``::

    ability_i    ~ Normal(0, 1)                                    IQ_i = 100 + 15 * ability_i
    logit_ij     = discrimination_j * (ability_i - difficulty_j)
    correct_ij   ~ Bernoulli(1 / (1 + exp(-logit_ij)))
    log_time_ij  ~ Normal(-time_slope * logit_ij, time_spread)

Times are in minutes: an item that somebody solves with probability one half takes them a minute in the
median, an easier one less. Given the ability, all responses and times are independent.

A sheet is a 32x32 image of 8x8 items. Item ``j`` fills the cell of 4x4 pixels in row ``j // 8`` and column
``j % 8``. The channels are constant over a cell, but for normal noise on every pixel by itself::

    channel 0    correct_ij                        0 or 1
    channel 1    time_ij / (time_ij + 1 minute)    between 0 and 1
    channel 2    1 / (1 + exp(-difficulty_j))      between 0 (easy) and 1 (hard)

A sheet shows difficulties but no discriminations: how much an item says about ability is for its reader
to find out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import DataError

__all__ = [
    "EXAM",
    "Answers",
    "Exam",
    "draw_sheets",
    "generate",
    "generate_batches",
    "item_logits",
    "item_parameters",
    "logistic",
    "sit_exam",
]

Floats = NDArray[np.float32]
Seed = int | tuple[int, ...]

GRID = 8
CELL = 4
SIDE = GRID * CELL
ITEMS = GRID * GRID
CHANNELS = 3

IQ_MEAN = 100.0
IQ_SPREAD = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """What is the same for all who take the test.

    Attributes:
        item_seed: Fixes the difficulties and discriminations of the items.
        difficulty_spread: Standard deviation of the difficulties, in standard deviations of ability.
        discrimination_spread: Standard deviation of the log-discriminations, whose mean is 0.
        time_slope: By how much the log-time falls when the item's logit rises by 1.
        time_spread: Standard deviation of the log-time of one person at one item.
        pixel_noise: Standard deviation of the noise on each pixel; a channel's range is 1.
    """

    item_seed: int = 64
    difficulty_spread: float = 1.0
    discrimination_spread: float = 0.3
    time_slope: float = 0.15
    time_spread: float = 0.6
    pixel_noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("difficulty_spread", "discrimination_spread", "pixel_noise"):
            if not getattr(self, name) >= 0:
                raise DataError(f"Exam({name}={getattr(self, name)}): standard deviations are 0 or more")
        if not self.time_spread > 0:
            raise DataError(f"Exam(time_spread={self.time_spread}): times must vary, so it is more than 0")


EXAM = Exam()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """What the test-takers did, before anything is drawn.

    Attributes:
        iq: float32 [N, 1], in IQ points.
        correct: float32 [N, 64], each 0 or 1.
        log_time: float32 [N, 64], natural logarithm of minutes.
    """

    iq: Floats
    correct: Floats
    log_time: Floats


def item_parameters(exam: Exam = EXAM) -> tuple[Floats, Floats]:
    """Difficulty and discrimination of each item, as ``exam.item_seed`` fixes them.

    Returns:
        ``(difficulty, discrimination)``, float32 [64] each: standard deviations of ability, and
        (all positive) logits per standard deviation of ability.
    """
    random = np.random.default_rng(exam.item_seed)
    difficulty = exam.difficulty_spread * random.standard_normal(ITEMS)
    discrimination = np.exp(exam.discrimination_spread * random.standard_normal(ITEMS))
    return difficulty.astype(np.float32), discrimination.astype(np.float32)


def item_logits(ability: NDArray[np.floating], exam: Exam = EXAM) -> Floats:
    """Log-odds of a right answer to each item: ``discrimination * (ability - difficulty)``.

    Args:
        ability: Shape [N], in standard deviations of the population.
        exam: The exam.

    Returns:
        float32 [N, 64].
    """
    difficulty, discrimination = item_parameters(exam)
    return (discrimination * (ability[:, None] - difficulty)).astype(np.float32)


def sit_exam(count: int, seed: Seed, exam: Exam = EXAM) -> Answers:
    """Let ``count`` people drawn from the population answer all items.

    The same arguments give the same answers.

    Raises:
        DataError: Nobody sits the exam.
    """
    if count < 1:
        raise DataError(f"an exam needs somebody to sit it: count is 1 or more, not {count}")
    random = _stream("answers", seed)
    ability = random.standard_normal(count, dtype=np.float32)
    logits = item_logits(ability, exam)
    correct = random.random(logits.shape, dtype=np.float32) < logistic(logits)
    log_time = exam.time_spread * random.standard_normal(logits.shape, dtype=np.float32)
    log_time -= exam.time_slope * logits
    iq = IQ_MEAN + IQ_SPREAD * ability[:, None]
    return Answers(iq=iq, correct=correct.astype(np.float32), log_time=log_time)


def draw_sheets(answers: Answers, seed: Seed, exam: Exam = EXAM) -> Floats:
    """The images of the answer sheets, under pixel noise that ``seed`` fixes.

    Returns:
        float32 [N, 3, 32, 32]; without the noise all values lie between 0 and 1.
    """
    difficulty, _ = item_parameters(exam)
    shades = (answers.correct, logistic(answers.log_time), logistic(difficulty))
    sheets = _stream("pixels", seed).standard_normal((len(answers.iq), CHANNELS, SIDE, SIDE), dtype=np.float32)
    sheets *= np.float32(exam.pixel_noise)
    cells = sheets.reshape(-1, CHANNELS, GRID, CELL, GRID, CELL)
    for channel, shade in enumerate(shades):
        cells[:, channel] += shade.reshape(-1, GRID, 1, GRID, 1)
    return sheets


def generate(count: int, seed: Seed, exam: Exam = EXAM) -> tuple[Floats, Floats]:
    """The answer sheets of ``count`` people, and their IQs.

    The same arguments give the same arrays; ``sit_exam`` with these arguments gives the answers that the
    sheets show.

    Returns:
        ``(sheets, iq)``: float32 [N, 3, 32, 32], and float32 [N, 1] in IQ points.

    Raises:
        DataError: ``count`` is less than 1.

    >>> sheets, iq = generate(2, seed=1)
    >>> sheets.shape, iq.shape
    ((2, 3, 32, 32), (2, 1))
    """
    answers = sit_exam(count, seed, exam)
    return draw_sheets(answers, seed, exam), answers.iq


def generate_batches(batches: int, batch_size: int, seed: Seed, exam: Exam = EXAM) -> Iterator[tuple[Floats, Floats]]:
    """Sheets and IQs of new people in every batch, made when they are asked for.

    Yields:
        What ``generate`` returns, with ``batch_size`` sheets.
    """
    for batch in range(batches):
        yield generate(batch_size, (*_numbers(seed), batch), exam)


def logistic(x: Floats) -> Floats:
    """``1 / (1 + exp(-x))`` of each value, in float32 and without overflow."""
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


def _stream(purpose: str, seed: Seed) -> np.random.Generator:
    """Random numbers of their own for each purpose, so that the noise of pixels never moves an answer."""
    return np.random.default_rng([int.from_bytes(purpose.encode()), *_numbers(seed)])


def _numbers(seed: Seed) -> tuple[int, ...]:
    return seed if isinstance(seed, tuple) else (seed,)
