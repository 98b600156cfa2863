"""Pairs of sentences with how alike people find them (STS-B), for sentence encoders."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.stats import spearmanr

from whit.data import Array, Data, Samples
from whit.metrics import Loss, Metric

__all__ = ["LENGTH", "Pairs", "Spearman", "sentences"]

LENGTH = 56
"""Words and pieces of the longest sentence, rounded up."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of sentences as inputs of an encoder.

    Attributes:
        inputs: Words and mask, ``(2 * pairs, LENGTH)``: all first sentences, then all second ones.
        scores: How alike a pair is, 0 to 5.
    """

    inputs: tuple[Array, Array]
    scores: Array

    @classmethod
    def read(cls, file: Path, tokenizer: Any, length: int = LENGTH) -> "Pairs":
        """Those of one file, every sentence filled up or cut to ``length``."""
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        sentences = [row[5] for row in rows] + [row[6] for row in rows]
        words = np.zeros((len(sentences), length), np.int64)
        mask = np.zeros_like(words)
        for place, found in enumerate(tokenizer.encode_batch(sentences)):
            ids = found.ids[:length]
            words[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
        return cls((words, mask), np.array([float(row[4]) for row in rows]))

    def split(self) -> tuple["Pairs", "Pairs"]:
        """Every second pair, and the others."""
        both = [np.tile(np.arange(len(self.scores)) % 2 == part, 2) for part in (0, 1)]
        parts = [
            Pairs((self.inputs[0][kept], self.inputs[1][kept]), self.scores[part::2]) for part, kept in enumerate(both)
        ]
        return parts[0], parts[1]

    def first(self, count: int) -> "Pairs":
        """The first pairs."""
        words, mask = (np.concatenate([half[:count] for half in np.split(x, 2)]) for x in self.inputs)
        return Pairs((words, mask), self.scores[:count])


def sentences(
    folder: Path, tokenizer: Any, length: int = LENGTH, *, dev: bool = False, most: int | None = None
) -> Data:
    """Sentences of the dev pairs to calibrate on, in no order, and the test pairs to judge on; targets mean nothing.

    Args:
        folder: Of the two files.
        tokenizer: Of the encoder.
        length: To which sentences are filled up or cut.
        dev: Calibrate on half of the dev pairs, and judge on the other half, to choose by.
        most: Pairs to judge on, the first ones; None for all.
    """
    seen, judged = (Pairs.read(folder / f"sts-{part}.csv", tokenizer, length) for part in ("dev", "test"))
    if dev:
        seen, judged = seen.split()
    judged = judged.first(len(judged.scores) if most is None else most)
    order = np.random.default_rng(0).permutation(len(seen.inputs[0]))
    return Data.of([x[order] for x in seen.inputs], np.zeros(len(order)), judged.inputs, np.tile(judged.scores, 2))


@dataclass(frozen=True, slots=True)
class Spearman(Metric):
    """The rank correlation of the cosines of pairs with their scores, times 100; samples in the order of ``Pairs``."""

    name: ClassVar[str] = "spearman"
    higher_is_better: ClassVar[bool] = True
    loss: ClassVar[Loss] = "mean_squared_error"

    def __call__(self, outputs: Array, targets: Array) -> float:
        """From unit vectors ``(2 * pairs, width)`` and scores, each twice."""
        first, second = np.split(outputs, 2)
        found: Any = spearmanr((first * second).sum(axis=1), targets[: len(first)])
        return 100 * float(found.statistic)

    def check(self, outputs: Array, samples: Samples) -> None:
        """Any vectors can be judged."""
