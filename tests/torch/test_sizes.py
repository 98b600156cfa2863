"""Numbers that a user's module keeps of its channels follow the cut, into a fresh instance too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Data, Plan, Prune, Rule
from whit.ledger import Kept
from whit.torch.edit import apply_

X = np.random.default_rng(0).normal(size=(24, 5, 6)).astype(np.float32)
Y = np.arange(24) % 3


class Stage(nn.Module):
    """Attention of heads whose number of features the module remembers, alone and as a row of sizes."""

    def __init__(self, heads: int, features: int) -> None:
        super().__init__()
        self.heads, self.features = heads, features
        self.shape = (3, heads, features)
        self.qkv = nn.Linear(10, 3 * heads * features)
        self.project = nn.Linear(heads * features, 10)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).reshape(*x.shape[:2], *self.shape).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * 0.3).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(*x.shape[:2], self.heads * self.features)
        return torch.relu(x + self.project(mixed))


class Stages(nn.Module):
    """Two stages of as many features a head and not as many heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 10)
        self.stages = nn.ModuleList([Stage(4, 8), Stage(2, 8)])
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean(1))


@pytest.fixture(scope="module")
def pruned() -> whit.Result[Stages]:
    """Of eight features a head, the first stage keeps six and the second four."""
    quarter = Rule(layers=r"stages\.0\.qkv", use=Prune(amount=0.25, unit="channel"))
    plan = Plan(Prune(amount=0.5, unit="channel", rules=(quarter,)))
    return whit.compress(Stages(), plan, data=Data.of(X, Y, X, Y))


def test_every_stage_remembers_its_own_sizes(pruned: whit.Result[Stages]) -> None:
    first, second = pruned.model.stages
    assert (first.heads, first.features, first.shape) == (4, 6, (3, 4, 6))
    assert (second.heads, second.features, second.shape) == (2, 4, (3, 2, 4))
    assert (first.qkv.out_features, second.qkv.out_features) == (72, 24)
    changed = {layer: sizes[8] for one in pruned.ledger if isinstance(one, Kept) for layer, sizes in one.sizes.items()}
    assert changed == {"stages.0": 6, "stages.1": 4}


def test_they_are_saved_and_come_back_in_a_fresh_instance(pruned: whit.Result[Stages], tmp_path: Path) -> None:
    whit.save(pruned, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=Stages())
    assert [(one.features, one.shape) for one in loaded.stages] == [(6, (3, 4, 6)), (4, (3, 2, 4))]
    x = torch.from_numpy(X)
    torch.testing.assert_close(loaded(x), pruned.model(x), rtol=0, atol=0)
    found = whit.runtime.load(tmp_path / "model.whit")(X)
    np.testing.assert_allclose(found, pruned.model(x).detach().numpy(), atol=1e-5)


def test_without_them_a_fresh_instance_is_cut_and_cannot_run(pruned: whit.Result[Stages]) -> None:
    fresh = Stages()
    apply_(fresh, [replace(one, sizes={}) if isinstance(one, Kept) else one for one in pruned.ledger])
    with pytest.raises(RuntimeError, match=r"shape .* is invalid for input of size"):
        fresh(torch.from_numpy(X))
