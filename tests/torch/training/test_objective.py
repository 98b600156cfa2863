"""What trainings make small: outputs and what is within, beside a teacher's."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit.distill import AttentionTransfer, Distill, FeatureHints, Hint, RelationalHints
from whit.steps import Finetune
from whit.torch.training.hinting import Hinting
from whit.torch.training.objective import Objective


class Made(nn.Module):
    """Has a part that makes a given tensor."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.part = nn.Identity()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.features)


def apart(hint: Hint, ours: Tensor, theirs: Tensor) -> float:
    """What a hint says of these features."""
    student, teacher = Made(ours), Made(theirs)
    hinting = Hinting(hint, student, teacher, (ours,))
    with hinting.listening():
        student(ours)
        teacher(ours)
    return float(hinting.loss().detach())


PART = ("part",)
MAPS = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4, 3, 5)).astype(np.float32))


@pytest.mark.parametrize("kind", [FeatureHints, AttentionTransfer, RelationalHints])
@pytest.mark.parametrize("features", [MAPS, MAPS.flatten(2)], ids=["maps", "sequences"])
def test_what_is_alike_costs_nothing_and_what_is_not_costs_something(kind: type[Hint], features: Tensor) -> None:
    assert apart(kind(layers=PART), features, features) == pytest.approx(0, abs=1e-5)
    assert apart(kind(layers=PART), features, features.flip(0)) > 0.01


def test_feature_hints_are_in_units_of_what_the_teacher_makes() -> None:
    assert apart(FeatureHints(layers=PART, strength=3.0), torch.zeros_like(MAPS), MAPS) == pytest.approx(3)


def test_feature_hints_learn_a_map_between_channels() -> None:
    hinting = Hinting(FeatureHints(layers=PART), Made(MAPS), Made(MAPS[:, :2]), (MAPS,))
    assert [tuple(one.shape) for one in hinting.maps] == [(2, 4)]


def test_attention_is_where_and_not_how_much_or_in_how_many_channels() -> None:
    assert apart(AttentionTransfer(layers=PART), MAPS, 3 * MAPS.repeat(1, 2, 1, 1)) == pytest.approx(0, abs=1e-6)
    # All in one position against all in another: maps of norm 1 at a right angle.
    ours, theirs = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    ours[:, :, 0, 0] = theirs[:, :, 1, 1] = 5
    assert apart(AttentionTransfer(layers=PART), ours, theirs) == pytest.approx(2)


def test_relations_are_kept_by_turning_scaling_and_moving() -> None:
    points = MAPS.flatten(1)
    turned = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(0)))[0]
    assert apart(RelationalHints(layers=PART), points, 2 * points @ turned + 1) == pytest.approx(0, abs=1e-4)


def test_relations_of_three_points_by_hand() -> None:
    # A right angle with sides 3 and 4, and an equilateral triangle of another size and dimension.
    ours = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    theirs = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    distances = np.mean([0.5 * (side / 4 - 1) ** 2 for side in (3, 4, 5)])
    angles = np.mean([0.5 * (cosine - 0.5) ** 2 for cosine in (0, 3 / 5, 4 / 5)])
    assert apart(RelationalHints(layers=PART), ours, theirs) == pytest.approx(distances + 2 * angles, rel=1e-4)


@pytest.mark.parametrize(
    ("hint", "shape", "message"),
    [
        (FeatureHints(layers=PART), (6, 4, 3), r"part makes \(6, 4, 3, 5\) and the teacher's part \(6, 4, 3\)"),
        (AttentionTransfer(layers=PART), (6, 4, 2, 5), "AttentionTransfer compares as many positions"),
        (RelationalHints(layers=PART), (5, 4), "cannot be compared"),
    ],
)
def test_shapes_that_cannot_be_compared_are_refused(hint: Hint, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(whit.ModelError, match=message):
        apart(hint, MAPS, torch.ones(shape))


def test_modules_that_are_not_there_or_are_not_called_are_refused() -> None:
    with pytest.raises(whit.PlanError, match="the network has no module 'prt'; it has part"):
        apart(FeatureHints(layers=("prt",)), MAPS, MAPS)
    student = Made(MAPS)
    student.never = nn.Identity()
    with pytest.raises(whit.ModelError, match="never gives NoneType in a forward pass"):
        Hinting(FeatureHints(layers=("never",), teacher_layers=PART), student, Made(MAPS), (MAPS,))


@pytest.mark.parametrize("others", [0.0, 1.0, 8.0])
def test_a_decoupled_divergence_is_that_about_the_label_and_that_among_the_others(others: float) -> None:
    random = np.random.default_rng(1)
    ours, theirs = (torch.from_numpy(random.normal(size=(16, 5)).astype(np.float32)) for _ in range(2))
    labels = torch.from_numpy(random.integers(0, 5, 16))
    objective = Objective(Finetune(epochs=1, distill=Distill(temperature=1.0, decoupled=others)), "cross_entropy")
    objective.teacher = lambda _: theirs
    found = float(objective(lambda _: ours, (), labels, torch.arange(16)))
    # KL = about the label + (1 - the teacher's share of the label) * among the others (Zhao et al. 2022, equation 7).
    p, q = theirs.softmax(1).double().numpy(), ours.softmax(1).double().numpy()
    whole = (p * np.log(p / q)).sum(1)
    rows = np.arange(16)
    of_label, of_ours = p[rows, labels], q[rows, labels]
    about = of_label * np.log(of_label / of_ours) + (1 - of_label) * np.log((1 - of_label) / (1 - of_ours))
    among = (whole - about) / (1 - of_label)
    assert found == pytest.approx((about + others * among).mean(), rel=1e-4)
