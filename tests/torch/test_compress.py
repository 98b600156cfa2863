"""From a network and a plan to a file that does what the result says: whole runs on small networks."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import measure
from whit.cli.table import table
from whit.data import Data
from whit.distill import Distill
from whit.ledger import Folded
from whit.plan import Plan
from whit.steps import Finetune, FoldBatchNorm, Prune, Quantize, Rule

BYTE = whit.Int(bits=8, symmetric=False, per="tensor")
SAFE = whit.Int(bits=8, reduce_range=True)


class Net(nn.Module):
    """Tells in which quarter of the image the bright spot is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(self.body(x) + x)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


def spots(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    rows, columns = random.integers(0, 8, (2, count))
    x[np.arange(count), 0, rows, columns] += 3
    return x, 2 * (rows // 4) + columns // 4


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.of(*spots(1024, 0), *spots(500, 1))


@pytest.fixture(scope="module")
def net(data: Data) -> Net:
    """A trained network."""
    from whit.ledger import Ledger
    from whit.metrics import Accuracy
    from whit.progress import Progress
    from whit.torch.network import TorchNetwork

    torch.manual_seed(0)
    network = TorchNetwork.of(Net(), data.train)
    step = Finetune(epochs=6, learning_rate=0.02, batch_size=64)
    network.finetune_(step, data.train, Accuracy(), Ledger(), network.copy(), Progress())
    return network.module  # type: ignore[return-value]


PLAN = Plan(
    Prune(amount=0.5, unit="channel"),
    Finetune(epochs=3, learning_rate=0.02, batch_size=64, distill=Distill()),
    FoldBatchNorm(),
    Prune(amount=0.5, rules=(Rule(layers="stem"),)),
    Finetune(epochs=2, learning_rate=0.01, batch_size=64),
    Quantize(weights=SAFE, activations=BYTE, range=whit.Percentile(percent=99.9)),
    Finetune(epochs=2, learning_rate=0.005, batch_size=64),
)


@pytest.fixture(scope="module")
def result(net: Net, data: Data) -> whit.Result[Net]:
    return whit.compress(net, PLAN, data=data)


def test_a_whole_plan_keeps_the_quality_in_a_fraction_of_the_size(result: whit.Result[Net]) -> None:
    assert result.before.quality > 0.95
    assert result.after.quality > result.before.quality - 0.03
    assert result.after.bytes < 0.5 * result.before.bytes
    assert result.after.macs < 0.4 * result.before.macs
    assert result.parity.agreement >= 0.99
    assert isinstance(result.model, Net)


def test_the_given_network_is_not_touched(net: Net, data: Data) -> None:
    before = copy.deepcopy(net.state_dict())
    whit.compress(net, Prune(amount=0.5), data=data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.stem.out_channels == 16


def test_figures_count_what_is_there(result: whit.Result[Net]) -> None:
    model = result.model
    assert result.after.parameters == sum(p.numel() for p in model.parameters())
    assert result.after.nonzero == sum(int(p.count_nonzero()) for p in model.parameters())
    # 64 positions: 8 x 1 x 9 in the stem, 8 x 8 x 9 in the body; then 32 features to 4 classes.
    assert result.after.macs == 64 * (8 * 9 + 8 * 8 * 9) + 32 * 4
    assert result.before.macs == 64 * (16 * 9 + 16 * 16 * 9) + 64 * 4
    assert result.after.bytes == len(result.file)
    assert result.after.bytes_onnx == len(result.onnx)
    latency = result.after.latency_ms
    assert 0 < latency.low <= latency.median <= latency.high


def test_quality_is_that_of_the_delivered_file_in_the_runtime(
    result: whit.Result[Net], data: Data, tmp_path: Any
) -> None:
    whit.save(result, tmp_path / "model.whit")
    outputs = whit.runtime.load(tmp_path / "model.whit")(*data.test.inputs)
    assert float((outputs.argmax(1) == data.test.targets).mean()) == result.after.quality


def test_masks_hold_to_the_end(result: whit.Result[Net]) -> None:
    masks = result.ledger.masks()
    assert masks.keys() == {"body.weight", "head.weight"}
    for name, decision in masks.items():
        weight = result.model.get_parameter(name)
        assert decision.mask.mean() == pytest.approx(0.5, abs=0.01)
        assert (weight[~torch.from_numpy(decision.mask)] == 0).all()


def test_the_model_holds_the_ledgers_codes(result: whit.Result[Net]) -> None:
    for name, decision in result.ledger.rounded().items():
        np.testing.assert_array_equal(result.model.get_parameter(name).detach().numpy(), decision.values())


def test_loading_into_a_fresh_instance_gives_the_same_network_bit_for_bit(
    result: whit.Result[Net], data: Data, tmp_path: Any
) -> None:
    whit.save(result, tmp_path / "model.whit")
    fresh = Net()
    loaded = whit.load(tmp_path / "model.whit", into=fresh)
    x = torch.from_numpy(np.asarray(data.test.inputs[0][:64]))
    assert torch.equal(loaded(x), result.model(x))
    assert fresh.stem.out_channels == 16
    assert {n: tuple(t.shape) for n, t in loaded.state_dict().items()} == {
        n: tuple(t.shape) for n, t in result.model.state_dict().items()
    }


def test_loading_into_another_class_lists_what_does_not_fit(result: whit.Result[Net], tmp_path: Any) -> None:
    class Other(Net):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Linear(2, 2)

    whit.save(result, tmp_path / "model.whit")
    with pytest.raises(whit.WeightsError, match=r"lacks extra\.bias, extra\.weight"):
        whit.load(tmp_path / "model.whit", into=Other())
    with pytest.raises(whit.WeightsError, match="has no"):
        whit.load(tmp_path / "model.whit", into=nn.Linear(2, 2))


def test_saving_over_a_file_is_refused_unless_asked(result: whit.Result[Net], tmp_path: Any) -> None:
    path = tmp_path / "model.whit"
    path.write_bytes(b"mine")
    with pytest.raises(whit.OutputError, match="exists already"):
        whit.save(result, path)
    assert path.read_bytes() == b"mine"
    whit.save(result, path, overwrite=True)
    assert path.read_bytes() == result.file
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_run_gives_the_same_file(result: whit.Result[Net], net: Net, data: Data) -> None:
    assert whit.compress(net, PLAN, data=data).file == result.file


def test_the_profile_changes_how_codes_are_stored_and_nothing_else(net: Net, data: Data) -> None:
    plan = whit.Plan(FoldBatchNorm(), Prune(amount=0.8), Quantize())
    small, fast = (whit.compress(net, plan, data=data, profile=profile) for profile in ("small", "fast"))
    assert small.file != fast.file
    assert small.onnx == fast.onnx
    with pytest.raises(whit.OutputError, match="profile='huge'"):
        whit.compress(net, PLAN, data=data, profile="huge")  # pyright: ignore


def test_values_are_compressed_too() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 8)).astype(np.float32)
    y = (x[:, :2].sum(1, keepdims=True) * 2).astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    plan = Plan(
        Finetune(epochs=60, learning_rate=0.02, batch_size=64),
        Prune(amount=0.5, unit="channel"),
        Finetune(epochs=20, learning_rate=0.01, batch_size=64, loss="mean_squared_error"),
        Quantize(weights=whit.Int(bits=6, per="group", group_size=8)),
    )
    result = whit.compress(module, plan, data=(x, y), metric="mae")
    assert result.before.quality > 1
    assert result.after.quality < 0.3


DATA = spots(50, 0)


@pytest.mark.parametrize(
    ("data", "metric", "error", "message"),
    [
        ((DATA[0][:, 0], DATA[1]), "accuracy", whit.DataError, "Net cannot run on the training data, batches of shape"),
        ((DATA[0][:49], DATA[1]), "accuracy", whit.DataError, "unequal numbers of samples"),
        ((DATA[0], DATA[1] + 1), "accuracy", whit.DataError, "labels lie outside 0 to 3"),
        ((DATA[0], DATA[1] - 1), "accuracy", whit.DataError, "labels lie outside 0 to 3"),
        ((DATA[0], DATA[1].astype(np.float32)), "accuracy", whit.DataError, "accuracy needs integer labels"),
        ((DATA[0] * np.nan, DATA[1]), "accuracy", whit.DataError, "input 0 holds 3200 NaN or infinite values"),
        ((DATA[0][:0], DATA[1][:0]), "accuracy", whit.DataError, "empty"),
        (DATA, "mae", whit.DataError, "needs them equal"),
        (DATA, "f1", whit.PlanError, "there is no metric 'f1'; choose accuracy, mae, mse"),
    ],
)
def test_bad_data_is_refused_before_anything_long_begins(
    data: Any, metric: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        whit.compress(Net(), Prune(amount=0.5), data=data, metric=metric)


def test_weights_that_are_not_numbers_are_named_and_counted() -> None:
    module = Net()
    with torch.no_grad():
        module.body.weight[0, 0, 0] = torch.nan
        module.head.bias[1] = torch.inf
    with pytest.raises(whit.WeightsError, match=r"body\.weight \(3\), head\.bias \(1\)"):
        whit.compress(module, Prune(amount=0.5), data=DATA)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Prune(amount=0.5, rules=(Rule(layers="heads"),)), "the rule for heads matches no layer; the layers are stem"),
        (Quantize(rules=(Rule(layers="x.*"),)), r"the rule for x\.\* matches no layer"),
        (Prune(amount=0.5, unit="channel", rules=(Rule(layers="zzz"),)), "the rule for zzz matches no layer"),
        (Quantize(), "FoldBatchNorm before Quantize"),
        (Prune(amount=0.5, unit="channel", rules=(Rule(layers=".*"),)), "no channel could be cut"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(step: Any, message: str) -> None:
    with pytest.raises(whit.PlanError, match=message):
        whit.compress(Net(), step, data=DATA)


def test_a_plan_may_fold_what_a_network_does_not_have() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    result = whit.compress(net, Plan(FoldBatchNorm(), Quantize(activations=None)), data=DATA)
    assert result.ledger.rounded().keys() == {"1.weight"}
    assert result.skipped == ()


def test_batch_normalisations_that_stay_are_listed() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 4))
    result = whit.compress(net, FoldBatchNorm(), data=DATA)
    assert [one.into for one in result.ledger.structure if isinstance(one, Folded)] == ["1"]
    assert [(one.layer, one.reason) for one in result.skipped] == [
        ("0", "no convolution or linear layer makes what it normalises, and that for it alone")
    ]


def test_another_network_can_teach(net: Net, data: Data) -> None:
    class Sure(nn.Module):
        """Knows the answer, and says it upside down, so that what was learned from it shows."""

        def forward(self, x: Tensor) -> Tensor:
            return -4 * F.adaptive_max_pool2d(x, 2).flatten(1)

    step = Finetune(epochs=6, learning_rate=0.02, batch_size=64, distill=Distill())
    own = whit.compress(net, step, data=data)
    taught = whit.compress(net, step, data=data, teacher=Sure())
    assert own.after.quality > 0.9
    assert taught.after.quality < 0.1


@pytest.mark.parametrize(
    ("outputs", "step", "error", "message"),
    [
        (5, Finetune(epochs=1, distill=Distill()), whit.ModelError, r"outputs have shape \(2, 5\).*\(2, 4\)"),
        (4, Finetune(epochs=1), whit.PlanError, r"no Finetune learns from it: give one distill=Distill\(\)"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    net: Net, data: Data, outputs: int, step: Finetune, error: type[Exception], message: str
) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
    with pytest.raises(error, match=message):
        whit.compress(net, step, data=data, teacher=teacher)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(whit.ModelError, match=r"takes a torch\.nn\.Module or an \.onnx file, not int"):
        whit.compress(3, Prune(amount=0.5), data=DATA)


def test_code_that_the_exporter_cannot_follow_is_named() -> None:
    class Data(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(x.flatten(1))
            return y * 2 if y.sum() > 0 else y

    with pytest.raises(whit.ModelError, match=r"torch\.export cannot follow Data"):
        whit.compress(Data(), Prune(amount=0.5), data=DATA)


def test_a_network_that_saturates_in_the_runtime_is_an_error_not_a_footnote(
    monkeypatch: pytest.MonkeyPatch, net: Net, data: Data
) -> None:
    from whit.torch.network import TorchNetwork

    honest = TorchNetwork.predict

    def other(self: TorchNetwork, samples: Any, most: int | None = None) -> Any:
        return -honest(self, samples, most)

    monkeypatch.setattr(TorchNetwork, "predict", other)
    with pytest.raises(whit.ParityError, match=r"disagree with the framework's on \d+ of 500 test samples"):
        whit.compress(net, Prune(amount=0.5), data=data)


class Attentive(nn.Module):
    """A transformer layer: its attention is a function of the framework that calls others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


@pytest.mark.parametrize("activations", [None, BYTE], ids=["weights", "activations"])
def test_a_transformer_computes_in_the_runtime_what_it_computes_in_torch(activations: whit.Int | None) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 5, 8)).astype(np.float32), random.integers(0, 4, 60)
    torch.manual_seed(0)
    result = whit.compress(Attentive(), Quantize(weights=SAFE, activations=activations), data=(x, y))
    assert result.ledger.rounded().keys() == {
        "embed.weight",
        "layer.self_attn.in_proj_weight",
        "layer.self_attn.out_proj.weight",
        "layer.linear1.weight",
        "layer.linear2.weight",
        "head.weight",
    }
    assert result.parity.mean_abs < (1e-6 if activations is None else 1e-2)
    assert result.skipped == ()


def test_latency_is_that_of_calls_of_as_many_samples_as_are_asked_for(
    net: Net, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[int, ...]] = []
    real = measure.latencies

    def seen(sessions: Any, inputs: Any, *, seconds: float = 0.1) -> list[measure.Latency]:
        timed.append(inputs[0].shape)
        return real(sessions, inputs, seconds=0.1)

    monkeypatch.setattr(measure, "latencies", seen)
    result = whit.compress(net, Plan(FoldBatchNorm(), Quantize()), data=data, batch=6)
    assert timed == [(6, 1, 8, 8)]
    assert result.batch == 6
    assert "ms for 6 samples" in list(table(result).columns[0].cells)


def test_calls_of_more_samples_than_there_are_are_refused_before_anything_is_done(net: Net, data: Data) -> None:
    with pytest.raises(whit.DataError, match="calls of 501 samples cannot be timed on the test data, which has 500"):
        whit.compress(net, Quantize(), data=data, batch=501)
