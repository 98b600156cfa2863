"""The outputs of a network: they stay unless a plan says which are needed, or that they may be fewer."""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Data, DataError, Distill, Finetune, Int, KeepOutputs, Plan, PlanError, Prune, Quantize, Rule
from whit.metrics import Loss, Metric

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 5)).astype(np.float32)


class Heads(nn.Module):
    """Seven outputs of one layer or of two, side by side; with ``share``, they end in softmax."""

    def __init__(self, *, split: bool = False, share: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(5, 16)
        self.heads = nn.ModuleList(nn.Linear(16, size) for size in ((3, 4) if split else (7,)))
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x))
        made = torch.cat([head(h) for head in self.heads], 1)
        return made.softmax(1) if self.share else made


class Neighbours(Metric):
    """The share of samples whose nearest other embedding is of the same kind."""

    name: ClassVar[str] = "neighbours"
    higher_is_better: ClassVar[bool] = True
    loss: ClassVar[Loss] = "mean_squared_error"

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        distances = np.square(outputs[:, None] - outputs[None]).sum(2) + 1e9 * np.eye(len(outputs))
        return float((targets[distances.argmin(1)] == targets).mean())

    def check(self, outputs: np.ndarray, samples: Any) -> None:
        assert outputs.ndim == 2


def outputs_of(model: nn.Module, x: np.ndarray = X) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def labelled(model: nn.Module, *classes: int) -> Data:
    """Samples of these classes: half as the network labels them among these, half as its second choice."""
    best = np.argsort(-outputs_of(model)[:, classes], 1)
    labels = np.asarray(classes)[np.where(np.arange(len(X)) % 2, best[:, 0], best[:, 1])]
    return Data.of(X, labels, X[:32], labels[:32])


@pytest.mark.parametrize("split", [False, True])
def test_the_classes_that_are_named_stay_as_they_were(split: bool, tmp_path: Path) -> None:
    model, kept = Heads(split=split), (1, 2, 5)
    data = labelled(model, *kept)
    result = whit.compress(model, KeepOutputs(indices=kept), data=data)
    expected = outputs_of(model)[:, kept]
    np.testing.assert_allclose(outputs_of(result.model), expected, atol=1e-6)  # sums may be done in another order
    # Every second label is the best of the three, so among them the network is right half of the time.
    assert result.after.quality == 0.5
    assert result.before.quality == (outputs_of(model)[:32].argmax(1) == data.test.targets).mean()
    whit.save(result, tmp_path / "model.whit")
    np.testing.assert_array_equal(
        outputs_of(whit.load(tmp_path / "model.whit", into=Heads(split=split))), outputs_of(result.model)
    )
    np.testing.assert_allclose(whit.runtime.load(tmp_path / "model.whit")(X), expected, atol=1e-5)


def test_what_follows_trains_on_the_classes_that_stay_and_learns_of_them_from_the_teacher() -> None:
    model = Heads()
    plan = Plan(
        KeepOutputs(indices=(0, 3, 6)),
        Prune(amount=0.25, unit="channel"),
        Finetune(epochs=2, distill=Distill(once=True)),
        Quantize(weights=Int(bits=4)),
        Finetune(epochs=1),
    )
    result = whit.compress(model, plan, data=labelled(model, 0, 3, 6), teacher=Heads(split=True))
    assert outputs_of(result.model).shape == (96, 3)
    assert [(one.layer, one.reason) for one in result.skipped] == [
        ("heads.0", "its channels are the output of the network")
    ]


def test_targets_of_every_output_are_cut_like_the_outputs() -> None:
    model = Heads()
    values = outputs_of(model) + np.arange(7, dtype=np.float32)
    result = whit.compress(model, KeepOutputs(indices=(2, 4)), data=(X, values), metric="mae")
    assert result.before.quality == pytest.approx(3, abs=1e-5)  # the mean of 0 to 6
    assert result.after.quality == pytest.approx(3, abs=1e-5)  # the mean of 2 and 4


def test_a_loop_of_ones_own_has_a_teacher_with_the_same_outputs() -> None:
    from whit.torch import prepare

    model = Heads()
    prepared = prepare(model, Plan(KeepOutputs(indices=(1, 5)), Finetune(epochs=1)), data=labelled(model, 1, 5))
    x = torch.from_numpy(X)
    torch.testing.assert_close(prepared.teacher(x), prepared.module(x))
    assert prepared.finish().after.quality == 0.5


def kinds() -> Data:
    """Samples of two kinds, for embeddings."""
    labels = (X[:, 0] > 0).astype(np.int64)
    return Data.of(X, labels, X[:32], labels[:32])


def narrower(*rules: Rule) -> Prune:
    return Prune(amount=0.45, unit="channel", outputs=True, rules=rules)


def test_an_embedding_becomes_narrower_where_that_is_asked() -> None:
    plan = Plan(narrower(), Finetune(epochs=1, distill=Distill(weight=1.0)))
    result = whit.compress(Heads(), plan, data=kinds(), metric=Neighbours())
    assert result.model.body.out_features == 9  # 0.45 of 16 are 7
    assert outputs_of(result.model).shape == (96, 4)  # and of 7 are 3
    assert result.skipped == ()


def test_the_outputs_that_are_left_are_those_worth_most() -> None:
    model = Heads()
    result = whit.compress(model, narrower(Rule(layers="body")), data=kinds(), metric=Neighbours())
    sums = np.abs(model.heads[0].weight.detach().numpy()).sum(1)
    largest = np.sort(np.argsort(-sums)[:4])
    np.testing.assert_allclose(outputs_of(result.model), outputs_of(model)[:, largest], atol=1e-6)


def test_outputs_stay_where_nothing_is_said_of_them() -> None:
    result = whit.compress(Heads(), Prune(amount=0.45, unit="channel"), data=kinds(), metric=Neighbours())
    assert outputs_of(result.model).shape == (96, 7)
    assert [one.layer for one in result.skipped] == ["heads.0"]


class Fixed(Heads):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(-1, 7)


@pytest.mark.parametrize(
    ("model", "kept", "message"),
    [
        (Heads(), (3, 7), "keeps output 7, the network gives 7 (0 to 6)"),
        (Heads(), tuple(range(7)), "KeepOutputs keeps all 7 outputs; drop the step"),
        (Heads(share=True), (3, 5), "heads.0: mixed by softmax together"),
        (Heads(split=True), (3, 5), "heads.0 would make nothing more; keep one of its outputs, 0 to 2"),
        (Fixed(), (3, 5), "the network's code fixes how many outputs heads.0 makes"),
    ],
)
def test_what_cannot_be_kept_is_an_error_that_says_why(model: nn.Module, kept: tuple[int, ...], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        whit.compress(model, KeepOutputs(indices=kept), data=(X, np.array([3, 5] * 48)))


def test_samples_of_classes_that_go_are_an_error() -> None:
    with pytest.raises(DataError, match=r"are classes that KeepOutputs does not keep \(5\); leave these samples out"):
        whit.compress(Heads(), KeepOutputs(indices=(1, 3)), data=(X, np.array([3, 5] * 48)))


@pytest.mark.parametrize(
    ("share", "rules", "message"),
    [
        (False, (Rule(layers=r"heads.*"),), "no output of the network can be cut"),
        (True, (), r"heads\.0: mixed by softmax together"),
    ],
)
def test_outputs_that_may_be_fewer_and_cannot_be_are_an_error(
    share: bool, rules: tuple[Rule, ...], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        whit.compress(Heads(share=share), narrower(*rules), data=kinds(), metric=Neighbours())


@pytest.mark.parametrize(
    ("metric", "message"),
    [("accuracy", "accuracy asks for classes"), ("mae", "targets tell what every output should be")],
)
def test_outputs_that_targets_speak_of_are_not_cut_by_worth(metric: str, message: str) -> None:
    targets = outputs_of(Heads()) if metric == "mae" else np.array([3, 5] * 48)
    with pytest.raises(PlanError, match=message + r"\. Name those that are to stay"):
        whit.compress(Heads(), narrower(), data=(X, targets), metric=metric)
