"""Inputs that are made up look to the network like those that it has seen."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import synthetic_data


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    """Images far from noise: bright, of large contrast, and their channels unlike each other."""
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 3, 8, 8)) * np.array([4.0, 2.0, 6.0])[:, None, None] + 3.0
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def net(real: np.ndarray) -> nn.Module:
    """Its normalisations remember the images; nothing else was trained."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, 4))
    module[1].momentum = module[4].momentum = None  # the plain mean over all batches
    with torch.no_grad():
        for batch in torch.from_numpy(real).split(64):
            module(batch)
    return module.eval()


def distance(net: nn.Module, x: np.ndarray) -> float:
    """How far the inputs of the normalisations are from what they remember, in deviations."""
    found: list[float] = []

    def keep(layer: nn.Module, read: tuple[Tensor, ...]) -> None:
        rows = read[0].movedim(1, 0).flatten(1)
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        found.append(float(((rows.mean(1) - layer.running_mean) / layer.running_var.sqrt()).square().mean()))
        found.append(float((rows.std(1) / layer.running_var.sqrt() - 1).square().mean()))

    hooks = [layer.register_forward_pre_hook(keep) for layer in net if isinstance(layer, nn.BatchNorm2d)]  # type: ignore[attr-defined]
    with torch.no_grad():
        net(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    return sum(found)


def test_normalisations_see_what_they_remember(net: nn.Module, real: np.ndarray) -> None:
    data = synthetic_data(net, (3, 8, 8), count=64)
    noise = np.random.default_rng(1).normal(size=(64, 3, 8, 8)).astype(np.float32)
    for samples in (data.train, data.test):
        assert distance(net, samples.inputs[0]) < 0.1 * distance(net, noise)
    # Numbers of the images themselves come back, though nobody told them: noise has deviations of 1.
    assert 2.0 < data.train.inputs[0].std() < 8.0


def test_answers_are_the_networks_own(net: nn.Module) -> None:
    data = synthetic_data(net, (3, 8, 8), count=8, steps=2)
    with torch.no_grad():
        outputs = net(torch.from_numpy(data.test.inputs[0])).numpy()
    np.testing.assert_array_equal(data.test.targets, outputs.argmax(1))
    values = synthetic_data(net, (3, 8, 8), count=8, steps=2, labels=False)
    np.testing.assert_allclose(values.test.targets, outputs, rtol=1e-5, atol=1e-6)


def test_a_network_is_quantized_without_any_data(net: nn.Module, real: np.ndarray) -> None:
    data = synthetic_data(net, (3, 8, 8), count=64)
    plan = whit.Plan(whit.FoldBatchNorm(), whit.Quantize(activations=whit.Int(bits=8, symmetric=False, per="tensor")))
    result = whit.compress(net, plan, data=data, metric="accuracy")
    assert result.before.quality == 1.0  # it is its own measure
    with torch.no_grad():
        expected, found = (one(torch.from_numpy(real)).argmax(1) for one in (net, result.model))
    assert (expected == found).float().mean() > 0.9


def test_nothing_of_the_network_changes(net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    synthetic_data(net, (3, 8, 8), count=4, steps=2)
    assert net.training
    net.eval()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_what_cannot_be_made_up_is_an_error(net: nn.Module) -> None:
    with pytest.raises(whit.ModelError, match="Linear has no batch normalisation that remembers"):
        synthetic_data(nn.Linear(3, 3), (3,))
    with pytest.raises(whit.ModelError, match=r"for a torch\.nn\.Module, not for str"):
        synthetic_data("model", (3,))
    with pytest.raises(whit.DataError, match=r"synthetic_data\(count=0, steps=100\)"):
        synthetic_data(net, (3, 8, 8), count=0)
