"""Simulated IQ tests: who takes them, what they answer, and the image of their answer sheet.

The model is a two-parameter logistic test (Birnbaum, in Lord & Novick 1968, ch. 17) whose response
times follow the same logit (Thissen 1983, without a person's own pace). For test-taker `i` and item `j`:

    ability_i                      ~ Normal(0, 1)              IQ_i = 100 + 15 * ability_i
    logit_ij                       = discrimination_j * (ability_i - difficulty_j)
    correct_ij                     ~ Bernoulli(1 / (1 + exp(-logit_ij)))
    log_time_ij                    ~ Normal(-time_slope * logit_ij, time_spread)

Times are in minutes: an item that a test-taker solves with probability one half takes a minute in the
median. Given the ability, all responses and times are independent.

A sheet is a 32x32 image of 8x8 items; item `j` fills the cell of 4x4 pixels in row `j // 8` and column
`j % 8`. Its three channels are constant over a cell up to independent normal noise on every pixel:

    channel 0   correct_ij                                     0 or 1
    channel 1   time / (time + one minute)                     between 0 and 1
    channel 2   1 / (1 + exp(-difficulty_j))                   between 0 (easy) and 1 (hard)

The reader of a sheet sees difficulties but not discriminations: those show in no pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

GRID = 8
CELL = 4
SIDE = GRID * CELL
ITEMS = GRID * GRID
CHANNELS = 3

IQ_MEAN = 100.0
IQ_SPREAD = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TestDesign:
    """Everything about the test that is the same for all who take it.

    Attributes:
        item_seed: fixes the difficulties and discriminations of the items.
        difficulty_spread: standard deviation of the difficulties, in standard deviations of ability.
        discrimination_spread: standard deviation of the log-discriminations, whose mean is 0.
        time_slope: fall of the log response time per unit of the item's logit.
        time_spread: standard deviation of the log response time for one person and item.
        pixel_noise: standard deviation of the noise on each pixel; a cell's full range is 1.
    """

    item_seed: int = 64
    difficulty_spread: float = 1.0
    discrimination_spread: float = 0.3
    time_slope: float = 0.15
    time_spread: float = 0.6
    pixel_noise: float = 0.1

    def __post_init__(self) -> None:
        if self.time_spread <= 0:
            raise ValueError(f"time_spread must be above 0, for times to be random, got {self.time_spread}")
        for name in ("difficulty_spread", "discrimination_spread", "pixel_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is a standard deviation, so 0 or more, got {getattr(self, name)}")


DESIGN = TestDesign()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """What the test-takers did, before it is drawn.

    Attributes:
        iq: float32 [N, 1], in IQ points.
        correct: float32 [N, 64], each 0 or 1.
        log_time: float32 [N, 64], natural logarithm of minutes.
    """

    iq: Floats
    correct: Floats
    log_time: Floats


def item_parameters(design: TestDesign = DESIGN) -> tuple[Floats, Floats]:
    """Difficulty and discrimination of each item, as `design.item_seed` fixes them.

    Returns:
        `(difficulty, discrimination)`, both float32 [64]; difficulty in standard deviations of ability,
        discrimination positive, in logits per standard deviation of ability.
    """
    random = np.random.default_rng(design.item_seed)
    difficulty = design.difficulty_spread * random.standard_normal(ITEMS)
    discrimination = np.exp(design.discrimination_spread * random.standard_normal(ITEMS))
    return difficulty.astype(np.float32), discrimination.astype(np.float32)


def item_logits(ability: NDArray[np.floating], design: TestDesign = DESIGN) -> Floats:
    """Log-odds of solving each item: `discrimination * (ability - difficulty)`.

    Args:
        ability: [N], in standard deviations of the population.

    Returns:
        float32 [N, 64].
    """
    difficulty, discrimination = item_parameters(design)
    return (discrimination * (ability.astype(np.float32)[:, None] - difficulty)).astype(np.float32)


def sit_test(count: int, seed: int, design: TestDesign = DESIGN) -> Answers:
    """Draw `count` test-takers from the population and let each answer all items.

    The same arguments give the same answers.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"an answer sheet needs a test-taker: count must be 1 or more, got {count}")
    random = _stream(seed, "answers")
    ability = random.standard_normal(count, dtype=np.float32)
    logits = item_logits(ability, design)
    correct = random.random(logits.shape, dtype=np.float32) < logistic(logits)
    noise = design.time_spread * random.standard_normal(logits.shape, dtype=np.float32)
    return Answers(
        iq=(IQ_MEAN + IQ_SPREAD * ability[:, None]).astype(np.float32),
        correct=correct.astype(np.float32),
        log_time=(noise - design.time_slope * logits).astype(np.float32),
    )


def draw_sheets(answers: Answers, seed: int, design: TestDesign = DESIGN) -> Floats:
    """The images of the answer sheets, with fresh pixel noise.

    Returns:
        float32 [N, 3, 32, 32]; without noise all values lie in [0, 1].
    """
    difficulty, _ = item_parameters(design)
    shades = np.stack(np.broadcast_arrays(answers.correct, logistic(answers.log_time), logistic(difficulty)), axis=1)
    cells = shades.reshape(-1, CHANNELS, GRID, 1, GRID, 1)
    sheets = _stream(seed, "pixels").standard_normal((len(shades), CHANNELS, SIDE, SIDE), dtype=np.float32)
    sheets *= np.float32(design.pixel_noise)
    by_cell = sheets.reshape(-1, CHANNELS, GRID, CELL, GRID, CELL)
    by_cell += cells
    return sheets


def generate(count: int, seed: int, design: TestDesign = DESIGN) -> tuple[Floats, Floats]:
    """Answer sheets of `count` test-takers and the IQ of each.

    The same arguments give the same arrays; `sit_test(count, seed, design)` gives the answers behind them.

    Returns:
        `(sheets, iq)`: float32 [N, 3, 32, 32] and float32 [N, 1] in IQ points.

    Raises:
        ValueError: `count` is below 1.
    """
    answers = sit_test(count, seed, design)
    return draw_sheets(answers, seed, design), answers.iq


def logistic(x: Floats) -> Floats:
    """`1 / (1 + exp(-x))`, elementwise and without overflow; same shape, float32."""
    return (0.5 * (1.0 + np.tanh(0.5 * x))).astype(np.float32)


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """A random stream of its own for each purpose, so that noise on pixels never moves an answer."""
    return np.random.default_rng([seed, *purpose.encode()])
