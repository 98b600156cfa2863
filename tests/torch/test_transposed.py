"""Transposed convolutions: their weights have inputs first, so rows, columns and moments lie elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import (
    Data,
    Finetune,
    FoldBatchNorm,
    Hessian,
    Int,
    Nearest,
    OptimalBrain,
    Plan,
    Prune,
    Quantize,
    Wanda,
    formats,
)
from whit.ledger import matrix
from whit.torch.moments import Call, vectors_of, watch

RANDOM = np.random.default_rng(0)


class Decoder(nn.Module):
    """From 4 by 4 to 8 by 8 to 16 by 16."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.ConvTranspose2d(8, 3, 2, stride=2)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


X = RANDOM.normal(size=(96, 6, 4, 4)).astype(np.float32) * np.array([1, 3, 1, 0.2, 1, 1], np.float32)[:, None, None]


def data_of(module: nn.Module) -> Data:
    with torch.no_grad():
        outputs = module(torch.from_numpy(X)).numpy()
    return Data.of(X[:64], outputs[:64], X[64:], outputs[64:])


def compressed(module: nn.Module, *steps: Any) -> Any:
    return whit.compress(module, Plan(*steps), data=data_of(module), metric="mse")


@pytest.mark.parametrize(
    ("kind", "size", "settings"),
    [
        (nn.ConvTranspose1d, (7,), {"kernel_size": 3}),
        (nn.ConvTranspose1d, (7,), {"kernel_size": 2, "stride": 3, "output_padding": 2}),
        (nn.ConvTranspose2d, (4, 5), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
        (nn.ConvTranspose2d, (4, 5), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}),
        (nn.ConvTranspose2d, (4, 4), {"kernel_size": 1, "padding": 1}),  # cuts off more than its kernel reaches
        (nn.ConvTranspose3d, (2, 3, 4), {"kernel_size": 2, "dilation": 2, "padding": 1}),
    ],
)
def test_rows_times_what_they_are_multiplied_with_is_what_comes_out(kind: Any, size: Any, settings: Any) -> None:
    layer = kind(3, 4, **settings)
    x = torch.randn(2, 3, *size)
    calls: list[Call] = []
    watch(layer, (x,), ["weight"], lambda _, call: calls.append(call))
    ((made,),) = [calls]
    every = torch.arange(made.output[0, 0].numel())
    (vectors,) = vectors_of(made, every)
    rows = torch.from_numpy(matrix(layer.weight.detach().numpy(), 1))
    expected = made.output.movedim(1, 0).flatten(1) - layer.bias[:, None]
    torch.testing.assert_close(rows @ vectors, expected.detach(), atol=1e-5, rtol=1e-5)


def test_it_takes_a_multiplication_for_each_number_read_and_each_weight_of_its_channel() -> None:
    # first: 4 * 4 places * 6 channels * 8 * 9 weights; second: 8 * 8 * 8 * 3 * 4.
    assert compressed(Decoder().eval(), FoldBatchNorm()).after.macs == 16 * 6 * 8 * 9 + 64 * 8 * 3 * 4


@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_norm_behind_it_is_folded(groups: int) -> None:
    module = Decoder(groups).eval()
    result = compressed(module, FoldBatchNorm())
    assert isinstance(result.model.norm, nn.Identity)
    x = torch.from_numpy(X)
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), module(x), atol=1e-5, rtol=1e-5)


def test_codes_that_heed_what_is_read_lose_less() -> None:
    module = Decoder().eval()
    lost = [
        compressed(module, FoldBatchNorm(), Quantize(weights=Int(bits=3), method=method)).after.quality
        for method in (Nearest(), OptimalBrain())
    ]
    assert 0 < lost[1] < 0.9 * lost[0]


@pytest.mark.parametrize(
    "target",
    [Int(bits=4), Int(bits=8, per="group", group_size=5), formats.NVFP4, formats.FP8_E4M3, Int(bits=3, per="tensor")],
    ids=str,
)
def test_what_is_delivered_is_what_was_rounded(target: Any, tmp_path: Path) -> None:
    module = Decoder().eval()
    result = compressed(module, FoldBatchNorm(), Quantize(weights=target, method=Nearest()))
    assert result.parity.agreement == 1
    rounded = result.ledger.rounded()["first.weight"]
    assert rounded.codes.shape == (8, 6 * 9)  # a row an output channel
    whit.save(result, tmp_path / "net.whit")
    again = whit.load(tmp_path / "net.whit", into=Decoder())
    x = torch.from_numpy(X)
    with torch.no_grad():
        torch.testing.assert_close(again(x), result.model(x), atol=0, rtol=0)


def test_openvino_runs_it_with_codes_as_weights(tmp_path: Path) -> None:
    result = compressed(Decoder().eval(), FoldBatchNorm(), Quantize(weights=Int(bits=8)))
    exported = whit.export(result, tmp_path / "net.xml", to="openvino", samples=X[:16])
    assert exported.parity.agreement == 1
    weights = sum(one.codes.size for one in result.ledger.rounded().values())
    assert weights <= (tmp_path / "net.bin").stat().st_size < 2 * weights


def test_training_goes_through_its_rounding_and_its_mask() -> None:
    module = Decoder().eval()
    steps = FoldBatchNorm(), Prune(amount=0.4), Quantize(weights=Int(bits=2))
    before = compressed(module, *steps)
    result = compressed(module, *steps, Finetune(epochs=30, learning_rate=1e-2, batch_size=16, trains="both"))
    assert result.after.quality < 0.85 * before.after.quality  # 0.72
    weight, mask = result.ledger.rounded()["second.weight"], result.ledger.masks()["second.weight"].mask
    assert (weight.values()[~mask] == 0).all()
    np.testing.assert_array_equal(result.model.second.weight.detach().numpy(), weight.values())


def test_wanda_weighs_by_what_each_weight_reads() -> None:
    module = Decoder().eval()
    result = compressed(module, Prune(amount=0.5, score=Wanda(), scope="row"))
    mask = result.ledger.masks()["first.weight"].mask
    # A kernel of 3 and a stride of 2: of 8 * 8 outputs, a quarter reads through the middle of the kernel, and about as
    # many through its corners. So what counts is how large the inputs are.
    worth = (
        np.abs(module.first.weight.detach().numpy()) * np.sqrt(np.square(X[:64]).mean((0, 2, 3)))[:, None, None, None]
    )
    rows = matrix(mask, 1).astype(bool)
    assert (rows.sum(1) == 27).all()
    kept, gone = (np.where(one, matrix(worth, 1), np.nan) for one in (rows, ~rows))
    assert (np.nanquantile(kept, 0.1, axis=1) > 0.8 * np.nanquantile(gone, 0.9, axis=1)).all()


def test_what_is_left_makes_up_for_what_was_pruned() -> None:
    module = Decoder().eval()
    lost = [
        compressed(module, FoldBatchNorm(), Prune(amount=0.5, score=Hessian(), compensate=more)).after.quality
        for more in (False, True)
    ]
    assert 0 < lost[1] < 0.8 * lost[0]


def test_groups_share_rows_so_nothing_is_known_of_what_they_read() -> None:
    module = Decoder(groups=2).eval()
    step = Quantize(weights=Int(bits=4), method=OptimalBrain())
    result = compressed(module, FoldBatchNorm(), step)
    (skipped,) = result.skipped
    assert skipped.layer == "first"
    assert "method=Nearest()" in skipped.reason
    assert set(result.ledger.rounded()) == {"second.weight"}
    plain = compressed(module, FoldBatchNorm(), Quantize(weights=Int(bits=8), method=Nearest()))
    assert plain.ledger.rounded()["first.weight"].codes.shape == (4, 6 * 9)
    assert plain.skipped == ()


def test_its_activations_stay_in_floating_point_and_that_is_said() -> None:
    byte = Int(bits=8, symmetric=False, per="tensor")
    result = compressed(Decoder().eval(), FoldBatchNorm(), Quantize(activations=byte))
    assert [one.layer for one in result.skipped] == ["first", "second"]
    assert all("ONNX Runtime has no transposed convolution of integers" in one.reason for one in result.skipped)
    assert not result.ledger.activations()
    assert len(result.ledger.rounded()) == 2
