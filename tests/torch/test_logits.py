"""A network that ends in softmax is measured and trained as one that leaves softmax to the loss."""

import numpy as np
import pytest
import torch
from torch import nn

from whit.data import Samples
from whit.distill import Distill
from whit.ledger import Ledger
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.steps import Finetune
from whit.torch.logits import logits_of
from whit.torch.network import TorchNetwork


def networks() -> tuple[list[TorchNetwork], Samples]:
    """A network that gives logits, the same one that gives shares, and samples."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    random = np.random.default_rng(0)
    samples = Samples((random.normal(size=(64, 6)).astype(np.float32),), random.integers(0, 3, 64))
    return [TorchNetwork.of(one, samples) for one in (body, nn.Sequential(*body, nn.Softmax(-1)))], samples


@pytest.mark.parametrize(
    "outputs",
    [
        torch.tensor([[0.2, 0.9]]),
        torch.tensor([[1.5, -0.5]]),
        torch.tensor([[0.5, 0.5], [3.0, 1.0]]),
        torch.zeros(1, 2),
    ],
    ids=str,
)
def test_what_are_no_shares_stays_as_it_is(outputs: torch.Tensor) -> None:
    assert logits_of(outputs) is outputs


def test_shares_of_nothing_have_finite_logarithms_and_gradients() -> None:
    shares = torch.tensor([[1.0, 0.0]], requires_grad=True)
    logits_of(shares)[0, 0].backward()
    assert torch.isfinite(logits_of(shares)).all()
    assert shares.grad is not None
    assert torch.isfinite(shares.grad).all()


def test_errors_in_weights_cost_the_same() -> None:
    both, samples = networks()
    costs = [net.sensitivities(["0.weight", "2.weight"], samples, 64, "cross_entropy") for net in both]
    for name in ("0.weight", "2.weight"):
        np.testing.assert_allclose(costs[1][name].rows, costs[0][name].rows, rtol=1e-4)


@pytest.mark.parametrize("distill", [None, Distill(weight=1.0)], ids=["labels", "teacher"])
def test_training_takes_the_same_steps(distill: Distill | None) -> None:
    both, samples = networks()
    step = Finetune(epochs=2, batch_size=16, learning_rate=0.01, optimizer="sgd", distill=distill)
    for net in both:
        teacher = net.copy()
        with torch.no_grad():
            teacher.module.get_parameter("2.bias").add_(torch.tensor([1.0, 0.0, -1.0]))
        net.finetune_(step, samples, Accuracy(), Ledger(), teacher, Progress())
    weights = [net.values()["0.weight"] for net in both]
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-5)
    assert not np.allclose(weights[0], networks()[0][0].values()["0.weight"], atol=1e-3)
