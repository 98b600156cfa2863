"""What users bring that is awkward: networks that share, skip and edit in place, and data that hardly calibrates."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, DataError, Int, MinMax, OptimalBrain, Quantize
from whit.quantizers import Nearest
from whit.quantizers.base import Quantizer

BYTE = Int(bits=8, symmetric=False, per="tensor")
METHODS = [Nearest(), OptimalBrain()]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(64, 3, 8, 8)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 64)


def step(method: Quantizer | None = None) -> Quantize:
    return Quantize(
        weights=Int(bits=8, reduce_range=True), activations=BYTE, range=MinMax(), method=method or Nearest(), samples=32
    )


def data(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Data:
    return Data.of(images, labels, IMAGES, LABELS)


class Net(nn.Module):
    """A convolution, a part of its own and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.first(x))).mean((2, 3)))


class Twice(Net):
    """Calls one layer twice, with other inputs each time."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.again(F.relu(self.again(x)) * 4))


class Tied(Twice):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(6, 6, 3, padding=1)
        self.other.weight = self.again.weight

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.other(F.relu(self.again(x))))


class Functional(Net):
    """Calls a function with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 6, 3, 3) / 8)

    def middle(self, x: Tensor) -> Tensor:
        return torch.relu(F.conv2d(x, self.kernel, padding=1))


class InPlace(Twice):
    """Adds to and clips what it made in its place."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.again(x)
        y += x
        return y.relu_()


class Idle(Twice):
    """Has a layer that its forward pass never calls."""

    def middle(self, x: Tensor) -> Tensor:
        return x


class Dead(Twice):
    """Makes nothing but zeros on its way."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.again.bias.fill_(-1e3)  # type: ignore[union-attr]

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.again(x))


@pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("make", [Twice, Tied, Functional, InPlace, Dead])
def test_every_weight_is_rounded_once_and_the_runtime_agrees(make: Callable[[], nn.Module], method: Quantizer) -> None:
    module = make().eval()
    result = whit.compress(module, step(method), data=data())
    rounded = [id(module.get_parameter(name)) for name in result.ledger.rounded()]  # a tied weight has two names
    assert sorted(rounded) == sorted(id(one) for one in module.parameters() if one.dim() > 1)
    assert result.ledger.activations()
    assert result.parity.agreement == 1.0
    assert not result.skipped
    with torch.no_grad():
        outputs = result.model(torch.from_numpy(IMAGES))
        assert torch.isfinite(outputs).all()
        torch.testing.assert_close(outputs, module(torch.from_numpy(IMAGES)), atol=0.1, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
def test_a_layer_that_is_never_called_stays_as_it_is_and_is_reported(method: Quantizer) -> None:
    module = Idle().eval()
    result = whit.compress(module, step(method), data=data())
    assert [(one.step, one.layer) for one in result.skipped] == [("quantize", "again")]
    assert torch.equal(result.model.again.weight, module.again.weight)


@pytest.mark.parametrize("largest", [1e6, 1e30])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
def test_one_outlier_among_what_calibrates_leaves_finite_grids(largest: float, method: Quantizer) -> None:
    images = IMAGES.copy()
    images[3, 1, 4, 4] = largest
    result = whit.compress(Net().eval(), step(method), data=data(images))
    for one in (*result.ledger.rounded().values(), *result.ledger.activations().values()):
        assert np.isfinite(one.scale).all()
        assert (one.scale > 0).all()


def test_images_that_are_all_alike_calibrate() -> None:
    result = whit.compress(Net().eval(), step(), data=data(np.zeros_like(IMAGES)))
    assert result.parity.agreement == 1.0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, :2], "shape"),
        (IMAGES[:, :, 0], "shape"),
        (IMAGES.astype(np.complex64), "complex64"),
        (IMAGES.astype(str), "<U"),
        (IMAGES[:0], "empty"),
        (np.full_like(IMAGES, np.nan), "NaN"),
    ],
    ids=["channels", "axes", "complex", "text", "none", "NaN"],
)
def test_data_that_cannot_calibrate_is_refused_with_the_reason(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        whit.compress(Net().eval(), step(), data=Data.of(images, LABELS[: len(images)], images, LABELS[: len(images)]))


@pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
def test_one_sample_calibrates_as_well_as_it_can(method: Quantizer) -> None:
    result = whit.compress(Net().eval(), step(method), data=Data.of(IMAGES[:1], LABELS[:1], IMAGES, LABELS))
    assert result.parity.agreement == 1.0
