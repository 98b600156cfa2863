"""Students: narrower and shallower copies of a network of the user's own class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, Distill, Finetune, FoldBatchNorm, Plan, PlanError, Prune, Quantize, Shrink
from whit.compress import begin
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.run import Run

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 3, 8, 8)).astype(np.float32)
DATA = Data.of(X, X.mean((2, 3)).argmax(1), X[:32], X[:32].mean((2, 3)).argmax(1))


class Block(nn.Module):
    """A residual branch with a bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.outer = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.relu(self.norm(self.inner(x))))


class Net(nn.Module):
    """Four blocks of any width, and a gain that no ``reset_parameters`` knows of."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(4)))
        self.gain = nn.Parameter(torch.full((width,), 0.5))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)) * self.gain)


def net(width: int = 16) -> Net:
    torch.manual_seed(0)
    made = Net(width)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return made.eval()


def after(*steps: Any, model: nn.Module | None = None) -> Run:
    run = begin(
        model or net(),
        Plan(*steps),
        data=DATA,
        metric=Accuracy(),
        profile="small",
        target=None,
        teacher=None,
        progress=Progress(),
    )
    run.through(0, len(steps))
    return run


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_a_student_of_a_width_is_the_class_made_with_that_width(width: float) -> None:
    run = after(Shrink(width=width))
    expected = {name: tuple(one.shape) for name, one in net(int(16 * width)).state_dict().items()}
    assert {name: one.shape for name, one in run.network.values().items()} == expected


@pytest.mark.parametrize(("depth", "kept"), [(0.5, {1, 3}), (0.25, {2}), (0.75, {0, 2, 3})])
def test_branches_that_stay_are_spread_evenly_and_inherit_their_weights(depth: float, kept: set[int]) -> None:
    run, given = after(Shrink(depth=depth)), net().state_dict()
    values = run.network.values()
    assert {int(name.split(".")[1]) for name in values if name.startswith("blocks")} == kept
    for name, value in values.items():
        np.testing.assert_array_equal(value, given[name].numpy())


def test_channels_with_the_largest_weights_are_inherited() -> None:
    run = after(Shrink(width=0.5))
    ledger_of = {kept.group: kept for kept in run.ledger.structure if isinstance(kept, whit.ledger.Kept)}
    expected = after(Prune(amount=0.5, unit="channel")).ledger
    for kept in expected.structure:
        assert isinstance(kept, whit.ledger.Kept)
        for axis, indices in kept.axes.items():
            np.testing.assert_array_equal(ledger_of[kept.group].axes[axis], indices)


def test_a_fresh_student_is_drawn_by_its_seed_and_what_cannot_be_drawn_is_said() -> None:
    given = net()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    runs = [after(Shrink(width=0.5, depth=0.5, start="fresh", seed=seed), model=given) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(2), expected)
    first, again, other = (run.network.values() for run in runs)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert not np.array_equal(first["stem.weight"], other["stem.weight"])
    assert (first["blocks.1.norm.running_var"] == 1).all()
    # A convolution is drawn within the root of one over what it reads, here 3 channels of 3x3.
    assert 0 < np.abs(first["stem.weight"]).max() <= 27**-0.5
    assert [(one.step, one.layer) for one in runs[0].skipped if one.step == "shrink"] == [("shrink", "gain")]
    assert (first["gain"] == 0.5).all()


def test_masks_hold_in_a_fresh_student() -> None:
    run = after(Prune(amount=0.5), Shrink(width=0.5, start="fresh"))
    for name, decision in run.ledger.masks().items():
        assert (run.network.values()[name][~decision.mask] == 0).all()
        assert (run.network.values()[name][decision.mask] != 0).all()


def test_a_student_learns_from_the_whole_network_and_is_rebuilt_from_its_file(tmp_path: Path) -> None:
    student = Shrink(width=0.5, depth=0.5, start="fresh")
    plan = Plan(student, Finetune(epochs=2, distill=Distill()), FoldBatchNorm(), Quantize())
    result = whit.compress(net(), plan, data=DATA)
    assert isinstance(result.model, Net)
    assert result.after.macs < 0.2 * result.before.macs
    whit.save(result, tmp_path / "student.whit")
    loaded = whit.load(tmp_path / "student.whit", into=Net())
    x = torch.from_numpy(X[:8])
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(x), result.model(x))


class Bare(nn.Module):
    """Two products with parameters of its own and nothing that draws them, without a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Parameter(torch.randn(8, 192)), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x.flatten(1), self.first)), self.second)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Shrink(width=0.5, start="fresh"), r"no module of the network has a reset_parameters\(\)"),
        (Shrink(depth=0.5), r"Shrink\(depth=0.5\): of 0 residual branches that can be left out none is to go"),
        (Shrink(width=0.95, depth=0.95), "Shrink"),
    ],
)
def test_a_network_that_cannot_be_made_so_is_an_error(step: Shrink, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        after(step, model=Bare())
