"""Names of activations: the same in eager mode, in training, in the exported graph and on a fresh instance."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit.formats import Int
from whit.ledger import RoundedActivation
from whit.torch.activations import Tracker, activations_of, interruptible, round_activations_
from whit.torch.capture import capture
from whit.torch.network import TorchNetwork

BYTE = Int(bits=8, symmetric=False, per="tensor")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.steps = 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        y = self.relu(self.again(x))
        for _ in range(self.steps):
            y = y + x
        return F.dropout(y, 0.5, self.training).mean((2, 3))


def decision(name: str, scale: float = 0.1) -> RoundedActivation:
    return RoundedActivation(tensor=name, target=BYTE, scale=np.asarray(scale, np.float32), zero_point=np.asarray(128))


def names(module: nn.Module) -> list[str]:
    seen: list[str] = []

    def visit(name: str, x: Tensor) -> Tensor:
        seen.append(name)
        return x

    x = torch.zeros(2, 3, 8, 8)
    with Tracker(visit):
        module(x)
    return seen


def test_the_exported_graph_names_activations_as_the_eager_module_does() -> None:
    module = Small().eval()
    exported = [operation.output for operation in capture(module, [torch.zeros(2, 3, 8, 8)]).operations]
    assert exported == names(module)


def test_training_gives_the_same_names() -> None:
    module = Small()
    assert names(module.train()) == names(module.eval())


def test_rounding_changes_no_name_and_no_graph() -> None:
    module = Small().eval()
    before = capture(module, [torch.zeros(2, 3, 8, 8)])
    round_activations_(module, {"1.relu": decision("1.relu")})
    assert capture(module, [torch.zeros(2, 3, 8, 8)]) == before
    assert names(module) == [operation.output for operation in before.operations]


def test_a_rounded_activation_lies_on_its_grid_for_all_who_read_it() -> None:
    module = Small().eval()
    x = torch.rand(2, 3, 8, 8)
    expected_conv = torch.relu(module.conv(x))
    expected = (expected_conv / 0.1).round().clamp(-128, 127) * 0.1
    expected = (torch.relu(module.again(expected)) + expected).mean((2, 3))
    round_activations_(module, {"1.relu": decision("1.relu")})
    torch.testing.assert_close(module(x), expected)


def test_a_copy_rounds_alike_and_on_its_own() -> None:
    module = Small().eval()
    round_activations_(module, {"1.relu": decision("1.relu", 0.5)})
    twin = copy.deepcopy(module)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(module(x), twin(x))
    round_activations_(module, {})
    assert activations_of(module) is None
    assert activations_of(twin) is not None
    assert not torch.equal(module(x), twin(x))


def test_the_state_of_the_network_gains_nothing() -> None:
    module = Small()
    before = set(module.state_dict())
    round_activations_(module, {"1.relu": decision("1.relu")})
    assert set(module.state_dict()) == before


def test_a_forward_pass_that_takes_another_path_is_an_error_that_names_what_is_missing() -> None:
    module = Small().eval()
    last = names(module)[-1]
    round_activations_(module, {last: decision(last)})
    module.steps = 2
    with pytest.raises(whit.ModelError, match=f"no longer computes {last}"):
        module(torch.rand(2, 3, 8, 8))
    module.steps = 1
    module(torch.rand(2, 3, 8, 8))


def test_after_an_error_in_the_network_the_next_pass_works() -> None:
    module = Small().eval()
    round_activations_(module, {"1.relu": decision("1.relu")})
    with pytest.raises(RuntimeError, match="channels"):
        module(torch.rand(2, 5, 8, 8))
    assert module(torch.rand(2, 3, 8, 8)).shape == (2, 4)


class Interrupted(Small):
    """Is interrupted after its first activation, as by Ctrl-C."""

    def forward(self, x: Tensor) -> Tensor:
        self.relu(self.conv(x))
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_behind_that_sees_later_calls() -> None:
    module = Interrupted().eval()
    round_activations_(module, {"1.relu": decision("1.relu")})
    with pytest.raises(KeyboardInterrupt), interruptible(module):
        module(torch.zeros(2, 3, 8, 8))
    assert torch.overrides._get_current_function_mode() is None


def test_looking_at_what_a_layer_reads_leaves_nothing_behind() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    samples = whit.Samples((x,), np.zeros(8, np.int64))
    net = TorchNetwork.of(Small().eval(), samples)
    layer = net.graph().layers()[0]
    before = net.copy()
    net.apply_([decision("1.relu")])
    cost = net.sensitivities([layer.weight], samples, 8, "cross_entropy")[layer.weight]
    assert net.moments(layer, before, samples, 8, cost) is not None
    assert torch.overrides._get_current_function_mode() is None
