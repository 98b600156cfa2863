"""Fine-tuning: masks hold, grids hold, teachers teach, seeds repeat."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit import decide, formats, store
from whit.data import Samples
from whit.decide import pruning
from whit.decide.scoring import Evidence
from whit.distill import Distill
from whit.formats import Format
from whit.ledger import Ledger
from whit.metrics import Accuracy, MeanAbsoluteError
from whit.progress import Progress
from whit.steps import Finetune, Prune, Quantize
from whit.torch.network import TorchNetwork
from whit.torch.training.rounded import RoundedWeight
from whit.torch.training.trainable import Trainable

BYTE = whit.Int(bits=8, symmetric=False, per="tensor")


def problem(classes: int = 3) -> tuple[nn.Module, Samples]:
    """Points of three clouds, which a small network can tell apart."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    y = random.integers(0, classes, 256)
    x = (random.normal(size=(256, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes)), Samples((x,), y)


def trained(step: Finetune, *before: Prune | Quantize) -> tuple[TorchNetwork, Ledger, Samples]:
    module, samples = problem()
    net = TorchNetwork.of(module, samples)
    teacher = net.copy()
    ledger = Ledger()
    for one in before:
        if isinstance(one, Prune):
            evidence = Evidence(samples=samples, most=256, loss="cross_entropy")
            decisions, _ = pruning.single_weights(one, net, ledger, evidence)
        else:
            net.apply_(net.foldable())
            decisions, _ = decide.rounding(one, net, ledger, samples, "cross_entropy")
        net.apply_(decisions)
        ledger = ledger.record(*decisions)
    rounded = net.finetune_(step, samples, Accuracy(), ledger, teacher, Progress())
    return net, ledger.record(*rounded), samples


def quality(net: TorchNetwork, samples: Samples) -> float:
    return Accuracy()(net.predict(samples), samples.targets)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_on_labels_learns_them(optimizer: str) -> None:
    rate = 0.02 if optimizer == "adamw" else 0.1
    net, _, samples = trained(Finetune(epochs=8, learning_rate=rate, batch_size=32, optimizer=optimizer))  # type: ignore[arg-type]
    assert quality(net, samples) > 0.9


class Convolution(nn.Module):
    """Views what a convolution made, which fails where the channels lie last in memory, or reshapes it."""

    def __init__(self, *, views: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.views, self.conv, self.head = views, nn.Conv2d(3, 4, 3), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu()
        return self.head(x.view(-1, 16) if self.views else x.reshape(-1, 16))


def test_a_module_that_views_its_images_trains_like_one_that_reshapes_them() -> None:
    random = np.random.default_rng(0)
    samples = Samples((random.normal(size=(64, 3, 4, 4)).astype(np.float32),), random.integers(0, 3, 64))
    found: list[np.ndarray] = []
    for views in (True, False):
        net = TorchNetwork.of(Convolution(views=views), samples)
        net.finetune_(Finetune(epochs=2, batch_size=16), samples, Accuracy(), Ledger(), net.copy(), Progress())
        found.append(net.predict(samples))
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_masked_weights_stay_zero(decay: float) -> None:
    net, ledger, samples = trained(
        Finetune(epochs=8, learning_rate=0.02, batch_size=32, weight_decay=decay), Prune(amount=0.75)
    )
    for name, decision in ledger.masks().items():
        assert (net.values()[name][~decision.mask] == 0).all()
        assert (net.values()[name][decision.mask] != 0).all()
    assert quality(net, samples) > 0.8


@pytest.mark.parametrize("target", [whit.Int(bits=2), whit.Int(bits=4, symmetric=False)], ids=str)
def test_training_starts_at_the_weights_before_rounding_as_far_as_they_round_to_their_codes(target: whit.Int) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    (decision,), _ = decide.round_weights(Quantize(weights=target), [decide.Weight("a", "a.weight", weights)])
    decision = replace(decision, codes=np.where(decision.codes == target.high, target.high - 1, decision.codes))
    weight = RoundedWeight(decision, None)
    before = weight.values()
    weight.start(weights)
    assert torch.equal(weight.values(), before)
    steps, latent = weights / decision.scale, weight.latent.detach().numpy()
    codes = decision.codes - decision.zero_point
    near = np.abs(steps - codes) < 0.49
    assert near.any()
    assert not near.all()
    np.testing.assert_allclose(latent[near], steps[near], rtol=1e-6)
    np.testing.assert_allclose(latent[~near], (codes + 0.49 * np.sign(steps - codes))[~near], rtol=1e-6)


@pytest.mark.parametrize("per", ["channel", "group", "tensor"])
def test_groups_of_zeros_are_trained_in_steps_as_long_as_those_of_the_others(
    per: Literal["channel", "group", "tensor"],
) -> None:
    weights = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    weights[1], weights[3, 4:] = 0, 0
    target = whit.Int(bits=16, per=per, group_size=4 if per == "group" else None)
    (decision,), _ = decide.round_weights(Quantize(weights=target), [decide.Weight("a", "a.weight", weights)])
    weight = RoundedWeight(decision, None)
    used = {"channel": [0, 2, 3, 4], "group": [0, 1, 4, 5, 6, 8, 9], "tensor": [0]}[per]
    scale = decision.scale.reshape(-1)
    found = np.setdiff1d(np.arange(len(scale)), used)
    expected = scale.copy()
    expected[found] = np.sort(scale[used])[(len(used) - 1) // 2]  # the lower of two in the middle
    np.testing.assert_array_equal(weight.scale.reshape(-1).numpy(), expected)
    assert (scale[found] == 1).all()
    np.testing.assert_array_equal(weight.values().detach().numpy(), decision.values())


def test_a_training_forgets_what_weights_were_before_rounding() -> None:
    net, _, _ = trained(Finetune(epochs=0.1, batch_size=32), Quantize(weights=whit.Int(bits=4)))
    assert not net.unrounded


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_are_trained_and_stay_on_their_grid(bits: int) -> None:
    step = Quantize(weights=whit.Int(bits=bits), activations=whit.Int(bits=8, symmetric=False, per="tensor"))
    net, ledger, samples = trained(Finetune(epochs=6, learning_rate=0.02, batch_size=32), step)
    for name, decision in ledger.rounded().items():
        np.testing.assert_array_equal(net.values()[name], decision.values())
    assert quality(net, samples) > 0.85


@pytest.mark.parametrize(
    "target",
    [
        whit.Int(bits=1),
        whit.Int(bits=16, per="tensor"),
        formats.MXINT8,
        formats.FP16,
        formats.BF16,
        formats.FP8_E5M2,
        formats.MXFP6_E2M3,
        replace(formats.NVFP4, group_size=4),
        whit.Codebook(k=2),
        whit.Codebook(k=8, per="channel"),
    ],
    ids=str,
)
def test_weights_of_every_format_are_trained_and_stay_on_their_levels(target: Format) -> None:
    net, ledger, samples = trained(Finetune(epochs=6, learning_rate=0.02, batch_size=32), Quantize(weights=target))
    for name, decision in ledger.rounded().items():
        np.testing.assert_array_equal(net.values()[name], decision.values())
    assert quality(net, samples) > 0.85


@pytest.mark.parametrize("target", [formats.FP8_E4M3, formats.NVFP4, whit.Codebook(k=9)], ids=str)
def test_scales_and_the_price_of_bits_go_with_every_format(target: Format) -> None:
    step = Finetune(epochs=4, learning_rate=0.02, batch_size=32, trains="both", rate=1e-5)
    net, ledger, samples = trained(step, Quantize(weights=target))
    for name, decision in ledger.rounded().items():
        np.testing.assert_array_equal(net.values()[name], decision.values())
    store.encode(ledger, None, {})  # scales are still of the kind that the format says
    assert quality(net, samples) > 0.8


@pytest.mark.parametrize("target", [formats.MXFP4, formats.BF16, whit.Codebook(k=9)], ids=str)
def test_numbers_beside_formats_without_float32_scales_keep_their_precision(target: Format) -> None:
    net, _, _ = trained(Finetune(epochs=1, learning_rate=0.02, batch_size=32), Quantize(weights=target))
    assert not any(formats.is_short(bias) for name, bias in net.values().items() if name.endswith("bias"))


def test_pruned_weights_cannot_be_binary_and_the_error_says_what_can() -> None:
    rules = (whit.Rule(layers="0"),)
    with pytest.raises(whit.PlanError, match=r"3\.weight was pruned, and int1 has no zero; take Int\(bits=2\)"):
        trained(Finetune(epochs=1), Prune(amount=0.5), Quantize(weights=whit.Int(bits=1), rules=rules))


@pytest.mark.parametrize("target", [whit.Codebook(k=4), formats.MXFP4, whit.Int(bits=2)], ids=str)
def test_masks_hold_in_every_format_that_has_a_zero(target: Format) -> None:
    net, ledger, _ = trained(Finetune(epochs=2, learning_rate=0.02), Prune(amount=0.5), Quantize(weights=target))
    for name, decision in ledger.masks().items():
        assert (net.values()[name][~decision.mask] == 0).all()


def test_masked_weights_stay_zero_through_rounding_and_training_after_it() -> None:
    step = Quantize(weights=whit.Int(bits=4, symmetric=False, per="group", group_size=4))
    net, ledger, _ = trained(Finetune(epochs=2, learning_rate=0.02), Prune(amount=0.5), step)
    for name, decision in ledger.masks().items():
        assert (net.values()[name][~decision.mask] == 0).all()


def test_a_teacher_alone_is_imitated() -> None:
    module, samples = problem()
    teacher = TorchNetwork.of(module, samples)
    student = teacher.copy()
    with torch.no_grad():
        for parameter in student.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)

    def distance() -> float:
        return float(np.abs(student.predict(samples) - teacher.predict(samples)).mean())

    before = distance()
    step = Finetune(epochs=10, learning_rate=0.02, batch_size=32, distill=Distill(temperature=2))
    student.finetune_(step, samples, Accuracy(), Ledger(), teacher, Progress())
    assert distance() < 0.5 * before


def test_a_teacher_that_is_asked_once_teaches_the_same_where_nothing_is_augmented() -> None:
    found = []
    for once in (False, True):
        net, _, samples = trained(Finetune(epochs=3, batch_size=32, distill=Distill(weight=0.5, once=once)))
        found.append(net.predict(samples))
    # It says in batches of 256 what it says in batches of 32, but for the last bits.
    np.testing.assert_allclose(*found, atol=1e-4)


def test_values_are_distilled_by_mean_squared_error() -> None:
    torch.manual_seed(1)
    x = np.random.default_rng(1).normal(size=(128, 4)).astype(np.float32)
    samples = Samples((x,), np.zeros((128, 1), np.float32))
    teacher = TorchNetwork.of(nn.Linear(4, 1), samples)
    student = TorchNetwork.of(nn.Linear(4, 1), samples)
    step = Finetune(epochs=40, learning_rate=0.1, batch_size=32, distill=Distill())
    student.finetune_(step, samples, MeanAbsoluteError(), Ledger(), teacher, Progress())
    np.testing.assert_allclose(student.predict(samples), teacher.predict(samples), atol=0.02)


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    runs = []
    for _ in range(2):
        module, samples = problem()
        net = TorchNetwork.of(nn.Sequential(module, nn.Dropout(0.5)), samples)
        torch.manual_seed(7)
        net.finetune_(Finetune(epochs=1, seed=3), samples, Accuracy(), Ledger(), net.copy(), Progress())
        assert torch.equal(torch.rand(3), expected)
        runs.append(net.values())
    for name, values in runs[0].items():
        np.testing.assert_array_equal(values, runs[1][name])


@pytest.mark.parametrize("before", [(), (Prune(amount=0.5), Quantize(activations=BYTE))], ids=["plain", "rounded"])
def test_training_in_bfloat16_teaches_as_much_and_leaves_float32(before: tuple[Prune | Quantize, ...]) -> None:
    found: list[TorchNetwork] = []
    for precision in ("float32", "bfloat16"):
        step = Finetune(epochs=8, learning_rate=0.02, batch_size=32, distill=Distill(weight=0.5), precision=precision)  # type: ignore[arg-type]
        net, ledger, samples = trained(step, *before)
        assert quality(net, samples) > 0.8
        assert all(tensor.dtype == torch.float32 for tensor in net.module.parameters())
        for name, decision in ledger.rounded().items():
            np.testing.assert_array_equal(net.values()[name], decision.values())
        found.append(net)
    # Eight bits of mantissa are not twenty-four, so something was computed otherwise.
    assert not np.array_equal(found[0].predict(samples), found[1].predict(samples))


def test_small_batches_that_are_accumulated_train_as_one_large_batch_does() -> None:
    found = []
    for accumulate in (1, 4):
        module, samples = problem()
        net = TorchNetwork.of(nn.Sequential(module[0], module[2], module[3]), samples)  # type: ignore[index]
        step = Finetune(epochs=2, batch_size=64 // accumulate, accumulate=accumulate, optimizer="sgd")
        net.finetune_(step, samples, Accuracy(), Ledger(), net.copy(), Progress())
        found.append(net.predict(samples))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_what_comes_out_is_the_mean_over_the_steps_where_one_is_asked_for() -> None:
    module = nn.Linear(3, 2)
    trainable = Trainable(module, Finetune(epochs=1, average=0.75, optimizer="sgd"), Ledger())
    seen = []
    for _ in range(6):
        module(torch.ones(1, 3)).sum().backward()
        trainable.take_step(0.1)
        seen.append(module.weight.detach().clone())
    # The plain mean of the first four, a quarter of each step's value from then on.
    expected = torch.stack(seen[:4]).mean(0)
    for value in seen[4:]:
        expected = 0.75 * expected + 0.25 * value
    trainable.finish()
    torch.testing.assert_close(module.weight.detach(), expected)


def test_a_loss_that_runs_away_stops_with_an_error_that_says_what_to_do() -> None:
    _, samples = problem()
    net = TorchNetwork.of(nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3)), samples)
    step = Finetune(epochs=50, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(whit.DataError, match=r"the training loss became .* lower the learning rate \(1e\+30\)"):
        net.finetune_(step, samples, Accuracy(), Ledger(), net.copy(), Progress())


def test_the_original_is_not_touched() -> None:
    module, samples = problem()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = TorchNetwork.of(module, samples)
    net.finetune_(Finetune(epochs=1), samples, Accuracy(), Ledger(), net.copy(), Progress())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
