"""A training that was stopped goes on where it was, to the same end."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit import decide
from whit.data import Samples
from whit.distill import Distill, FeatureHints
from whit.ledger import Ledger
from whit.metrics import Accuracy
from whit.progress import Bar, Progress
from whit.steps import Finetune, Quantize
from whit.torch.network import TorchNetwork
from whit.torch.training import checkpoint

ROUNDING = Quantize(weights=whit.Int(bits=4), activations=whit.Int(bits=4, symmetric=False, per="tensor"))
STEP = Finetune(epochs=6, learning_rate=0.02, batch_size=32, trains="both", rate=1e-4, distill=Distill(weight=0.5))


class StoppedError(Exception):
    """Whoever watches has had enough."""


class Stops(Progress):
    """Raises after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        yield self

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.left -= bool(note)
        if self.left < 0:
            raise StoppedError


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS", 0.0)


def train(step: Finetune, progress: Progress, path: Path | None, shift: float = 0.0) -> tuple[dict[str, Any], Ledger]:
    """Values and ledger after training of a small network with dropout, whose course depends on chance."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 256)
    x = (random.normal(size=(256, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    samples = Samples((x,), y)
    norm = [nn.BatchNorm1d(16)] if step.batch_norm else []
    layers = nn.Linear(6, 16), *norm, nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    net = TorchNetwork.of(nn.Sequential(*layers), samples)
    teacher = net.copy()
    with torch.no_grad():
        next(teacher.module.parameters()).add_(shift)
    folded = net.foldable()
    net.apply_(folded)
    decisions, _ = decide.rounding(ROUNDING, net, Ledger(), samples, "cross_entropy")
    net.apply_(decisions)
    ledger = Ledger().record(*folded, *decisions)
    trained = net.finetune_(step, samples, Accuracy(), ledger, teacher, progress, path)
    return dict(net.values()), ledger.record(*trained)


HINTED = Distill(weight=0.5, hints=FeatureHints(layers=("0",)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd"},
        {"average": 0.9},
        {"distill": HINTED},
        {"accumulate": 2, "batch_size": 16},
        {"rate": 0.0, "held_out": 0.25, "judge_every": 0.5, "average": 0.5},
        {"rate": 0.0, "held_out": 0.25, "patience": 3},
        {"batch_norm": True, "average": 0.9},
    ],
    ids=["adamw", "sgd", "averaged", "hinted", "accumulated", "judged", "impatient", "normalised"],
)
@pytest.mark.parametrize("after", [7, 25])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    after: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    step = replace(STEP, **changes)
    path = tmp_path / "states" / "step.safetensors"
    with pytest.raises(StoppedError):
        train(step, Stops(after), path)
    # States are kept after every tenth step: the seventh is before the first.
    assert path.exists() == (after > 10)
    found, ledger = train(step, Progress(), path)
    expected, whole = train(step, Progress(), None)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    for name, decision in whole.activations().items():
        assert ledger.activations()[name].scale == decision.scale
        assert ledger.activations()[name].zero_point == decision.zero_point
    for name, weight in whole.rounded().items():
        np.testing.assert_array_equal(ledger.rounded()[name].codes, weight.codes)
        np.testing.assert_array_equal(ledger.rounded()[name].scale, weight.scale)


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    expected, _ = train(STEP, Progress(), path)
    found, _ = train(STEP, Stops(0), path)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    train(STEP, Progress(), path)
    with pytest.raises(whit.FileError, match=r"step\.safetensors is the state of another training"):
        train(Finetune(epochs=5, trains="both"), Progress(), path)


def test_the_state_of_a_training_by_another_teacher_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    train(STEP, Progress(), path)
    with pytest.raises(whit.FileError, match="is the state of another training"):
        train(STEP, Progress(), path, shift=0.5)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    train(STEP, Progress(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(whit.FileError, match=r"is no state of a training.*remove it to start anew"):
        train(STEP, Progress(), path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(whit.OutputError, match="cannot make"):
        train(STEP, Progress(), tmp_path / "file" / "step.safetensors")
