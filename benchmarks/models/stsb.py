"""Pairs of sentences with how alike people find them (STS-B), for sentence encoders."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

__all__ = ["LENGTH", "Pairs"]

LENGTH = 56
"""Words and pieces of the longest sentence, rounded up."""


class Pairs:
    """The pairs of one file as inputs of an encoder.

    Attributes:
        inputs: Words and mask, ``(2 * pairs, LENGTH)``: all first sentences, then all second ones.
    """

    def __init__(self, file: Path, tokenizer: Any) -> None:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        self.scores = np.array([float(row[4]) for row in rows])
        sentences = [row[5] for row in rows] + [row[6] for row in rows]
        words = np.zeros((len(sentences), LENGTH), np.int64)
        mask = np.zeros_like(words)
        for place, found in enumerate(tokenizer.encode_batch(sentences)):
            ids = found.ids[:LENGTH]
            words[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
        self.inputs = (words, mask)

    def correlation(self, vectors: Any) -> float:
        """Spearman's correlation of cosines of unit vectors with the scores, times 100."""
        first, second = np.split(vectors, 2)
        return 100 * float(spearmanr((first * second).sum(axis=1), self.scores).statistic)
