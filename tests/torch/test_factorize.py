"""Layers of eager modules as chains of their factors: the same at full rank, in memory, in files and in runtimes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, Factorize, Finetune, FoldBatchNorm, Int, ModelError, Plan, PlanError, Prune, Quantize, Rule
from whit.cli.inspection import describe
from whit.decide.factorize import factorize
from whit.decide.scoring import Evidence
from whit.factors import FORMS
from whit.ledger import Assigned, Factored, Ledger, Masked
from whit.moments import Moments
from whit.progress import Progress
from whit.torch.edit import apply_
from whit.torch.factored import chain
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
# What is read lies near a plane of few channels, as what layers of trained networks read does.
X = np.einsum("nrhw,rc->nchw", RANDOM.normal(size=(128, 4, 8, 8)), RANDOM.normal(size=(4, 12))).astype(np.float32)
X += RANDOM.normal(size=X.shape).astype(np.float32) / 20
Y = X.mean((2, 3)).argmax(1) % 6
DATA = Data.of(X, Y, X[:64], Y[:64])
EVIDENCE = Evidence(samples=DATA.train, most=64, loss="cross_entropy")


class Net(nn.Module):
    """A stem, a layer that is used twice, a depthwise one, one of 1x1 with a stride, and linear ones; one is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, (3, 5), padding="same", padding_mode="reflect")
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 24, 1, stride=2, padding=1)
        self.up, self.again, self.head = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 6)
        self.again.weight = self.up.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = self.body(F.relu(self.body(x)))
        x = F.relu(self.point(self.deep(x))).mean((2, 3))
        return self.head(F.relu(self.again(F.relu(self.up(x)))))


class Asking(nn.Module):
    """Its code looks at a layer's weight and how wide it is."""

    def __init__(self) -> None:
        super().__init__()
        self.only, self.head = nn.Linear(12, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.only(x.mean((2, 3)).to(self.only.weight.dtype)[:, : self.only.in_features]))


class Insisting(Asking):
    """Its code takes the weight out of the layer itself, as a parameter, which a chain of layers has not."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.only.get_parameter("weight").ne(0).any())


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def network_of(kind: type[nn.Module]) -> TorchNetwork:
    return TorchNetwork.of(seeded(kind), DATA.train)


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    return network_of(Net)


def chosen(step: Factorize, network: TorchNetwork) -> tuple[list[Factored | Assigned], dict[str, str]]:
    """What a step decides, and why it does no more."""
    decisions, skipped = factorize(step, network, EVIDENCE, Progress())
    return decisions, {one.layer: one.reason for one in skipped}


def ranks_of(decisions: list[Factored | Assigned]) -> dict[str, tuple[int, ...]]:
    return {one.layer: one.ranks for one in decisions if isinstance(one, Factored)}


def after(network: TorchNetwork, decisions: list[Factored | Assigned]) -> TorchNetwork:
    other = network.copy()
    other.apply_(decisions)
    return other


def loss_of(network: TorchNetwork, decisions: list[Factored | Assigned]) -> float:
    """The mean squared difference that decisions make to the outputs."""
    before, found = (one.predict(DATA.train) for one in (network, after(network, decisions)))
    return float(((before - found) ** 2).mean())


LAYERS = [
    (nn.Linear(5, 8), "matrix", (7, 5)),
    (nn.Conv2d(5, 8, 1, stride=2, padding=1, bias=False), "matrix", (7, 5, 9, 9)),
    (nn.Conv2d(5, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), "spatial", (2, 5, 9, 12)),
    (nn.Conv2d(5, 8, 3, padding="same", padding_mode="circular"), "spatial", (2, 5, 9, 9)),
    (nn.Conv2d(5, 8, 3, stride=2, padding=1), "channel", (2, 5, 9, 9)),
    (nn.Conv1d(5, 8, 3, dilation=2), "channel", (2, 5, 9)),
    (nn.Conv3d(5, 8, (2, 3, 3), padding=1, padding_mode="replicate"), "channel", (2, 5, 6, 6, 6)),
]


@pytest.mark.parametrize(("layer", "name", "shape"), LAYERS, ids=lambda one: str(one)[:40])
def test_a_chain_of_full_rank_computes_what_the_layer_does(layer: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    form, weight = FORMS[name], layer.weight.detach().numpy()
    plain = Moments.equal(len(weight), weight[0].size)
    decision = Factored(layer="0", form=name, ranks=form.most(weight.shape))
    made = nn.Sequential(layer)
    x = torch.from_numpy(RANDOM.normal(size=shape).astype(np.float32))
    expected = made(x)
    values = dict(zip(decision.weights, form.factors(weight, plain, decision.ranks), strict=True))
    values |= {decision.bias: layer.bias.detach().numpy()} if layer.bias is not None else {}
    apply_(made, [decision, *(Assigned(parameter=key, values=value) for key, value in values.items())])
    assert {one for one, _ in made.named_parameters()} == set(values)
    torch.testing.assert_close(made(x), expected, atol=1e-5, rtol=1e-5)


def test_ranks_keep_the_energy_and_a_bias_stays_with_the_last_factor(network: TorchNetwork) -> None:
    step = Factorize(energy=0.6, by="weights", rules=(Rule(layers="(?!head).*"),))
    (first, *rest), skipped = chosen(step, network)
    assert skipped == {}
    values = np.linalg.svd(network.values()["head.weight"], compute_uv=False) ** 2
    rank = int(np.argmax(np.cumsum(values) >= 0.6 * values.sum())) + 1
    assert first == Factored(layer="head", form="matrix", ranks=(rank,))
    assert [one.parameter for one in rest] == ["head.0.weight", "head.1.weight", "head.1.bias"]
    np.testing.assert_array_equal(rest[2].values, network.values()["head.bias"])


def test_layers_that_have_no_factors_are_named_with_the_reason(network: TorchNetwork) -> None:
    decisions, skipped = chosen(Factorize(energy=0.5), network)
    assert skipped == {
        "deep": "its channels are in groups, which factors would join",
        "again": "its weight is not its own: other modules share it, or code reads it itself",
    }
    assert set(ranks_of(decisions)) == {"stem", "body", "point", "head"}


def test_ranks_that_save_nothing_are_left_alone(network: TorchNetwork) -> None:
    skipped = chosen(Factorize(energy=1 - 1e-9, by="weights"), network)[1]
    assert skipped["head"] == "to keep 1 of its energy takes rank 6, which saves no parameter"


@pytest.mark.parametrize("kernels", ["channel", "spatial"])
@pytest.mark.parametrize("share", ["parameters", "macs"])
def test_a_budget_is_kept_and_hardly_more_is_given_up(network: TorchNetwork, kernels: str, share: str) -> None:
    decisions, _ = chosen(Factorize(**{share: 0.75}, kernels=kernels), network)
    other = after(network, decisions)
    if share == "macs":
        kept = other.graph().macs() / network.graph().macs()
    else:
        kept = sum(x.size for x in other.parameters().values()) / sum(x.size for x in network.parameters().values())
    assert 0.7 < kept <= 0.75


def test_knowing_what_layers_read_loses_less_than_the_plain_decomposition(network: TorchNetwork) -> None:
    rules = (Rule(layers="(?!stem|body|point|head).*"),)
    knowing, plain = (
        chosen(Factorize(parameters=0.65, by=by, rules=rules), network)[0] for by in ("outputs", "weights")
    )
    assert loss_of(network, knowing) < 0.5 * loss_of(network, plain)


def test_a_layer_that_is_used_twice_becomes_one_chain(network: TorchNetwork) -> None:
    rules = (Rule(layers="(?!body).*"),)
    decisions, _ = chosen(Factorize(energy=0.95, rules=rules), network)
    other = after(network, decisions)
    assert [layer.uses for layer in other.graph().layers() if layer.name.startswith("body")] == [2, 2, 2]


def test_a_budget_that_cannot_be_met_says_what_can(network: TorchNetwork) -> None:
    with pytest.raises(PlanError, match=r"would keep 0\.\d+ of its parameters still; ask for less"):
        chosen(Factorize(parameters=0.05), network)


def test_ranks_are_multiples_where_they_are_asked_to_be(network: TorchNetwork) -> None:
    for step in (Factorize(parameters=0.8, multiple_of=4), Factorize(energy=0.6, multiple_of=4)):
        found = ranks_of(chosen(step, network)[0])
        assert found
        assert all(rank % 4 == 0 or rank == 6 for ranks in found.values() for rank in ranks)  # 6: all that head has


def test_code_that_looks_at_the_weight_finds_the_product() -> None:
    decisions, skipped = chosen(Factorize(energy=0.5), network_of(Asking))
    assert skipped == {}
    assert set(ranks_of(decisions)) == {"only", "head"}


def test_code_that_takes_the_weight_out_of_the_layer_is_found_out() -> None:
    decisions, skipped = chosen(Factorize(energy=0.5), network_of(Insisting))
    assert skipped == {"only": "the network's code does something else with it than to call it"}
    assert set(ranks_of(decisions)) == {"head"}


def test_tables_of_embeddings_are_left_alone() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 12), nn.Linear(12, 6)

        def forward(self, words: Tensor) -> Tensor:
            return self.head(self.table(words).mean(1))

    words = RANDOM.integers(0, 9, (64, 5))
    data = Data.of(words, Y[:64], words, Y[:64])
    network = TorchNetwork.of(seeded(Words), data.train)
    evidence = Evidence(samples=data.train, most=64, loss="cross_entropy")
    _, skipped = factorize(Factorize(energy=0.5), network, evidence, Progress())
    assert [(one.layer, one.reason) for one in skipped] == [("table", "it is a table of embeddings")]


def test_means_are_made_up_for_where_there_is_a_bias(network: TorchNetwork) -> None:
    rules = (Rule(layers="(?!head).*"),)
    before = network.predict(DATA.train).mean(axis=0)
    knowing, plain = (chosen(Factorize(energy=0.3, by=by, rules=rules), network)[0] for by in ("outputs", "weights"))
    moved = [np.abs(after(network, one).predict(DATA.train).mean(axis=0) - before).max() for one in (knowing, plain)]
    assert moved[0] < 0.1 * moved[1]


def test_it_goes_with_cut_channels_training_and_integers_and_comes_back_from_a_file(tmp_path: Path) -> None:
    plan = Plan(
        FoldBatchNorm(),
        Factorize(parameters=0.8),
        Prune(amount=0.25, unit="channel"),
        Finetune(epochs=1),
        Prune(amount=0.3),
        Quantize(weights=Int(bits=8, reduce_range=True), activations=Int(bits=8, symmetric=False, per="tensor")),
    )
    result = whit.compress(seeded(Net), plan, data=DATA)
    assert result.parity.agreement >= 0.99
    factored = [one for one in result.ledger if isinstance(one, Factored)]
    rounded = result.ledger.rounded()
    for one in factored:
        assert set(one.weights) <= set(rounded)
        assert f"{one.layer}.weight" not in result.ledger.given()
    path = tmp_path / "model.whit"
    whit.save(result, path)
    again = whit.load(path, into=seeded(Net))
    x = torch.from_numpy(X)
    with torch.no_grad():
        np.testing.assert_array_equal(again(x), result.model(x))
    fresh = TorchNetwork.of(seeded(Net), DATA.train)
    fresh.apply_(list(result.ledger))
    np.testing.assert_array_equal(fresh.predict(DATA.train), TorchNetwork.of(again, DATA.train).predict(DATA.train))
    found = describe(path)["structure"]["factored"]
    assert [(one["layer"], tuple(one["ranks"])) for one in found] == [(one.layer, one.ranks) for one in factored]


def test_batch_normalisations_fold_into_the_last_factor() -> None:
    rules = (Rule(layers="(?!stem).*"),)
    result = whit.compress(seeded(Net), Plan(Factorize(energy=0.9, rules=rules), FoldBatchNorm()), data=DATA)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load_from_string(result.onnx).graph.node}
    assert "stem.2.bias" in result.ledger.given()


def test_a_file_as_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    batch = {0: torch.export.Dim("batch")}
    example = (torch.from_numpy(X[:2]),)
    torch.onnx.export(
        seeded(Net), example, path, dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False
    )
    result = whit.compress(str(path), Factorize(parameters=0.8), data=DATA)
    assert result.after.parameters <= 0.8 * result.before.parameters


def test_decisions_on_a_weight_that_is_gone_are_gone() -> None:
    masks = [Masked(parameter=f"{name}.weight", mask=np.ones(1, np.bool_)) for name in ("a", "a.0")]
    decision = Factored(layer="a", form="matrix", ranks=(1,))
    assert list(Ledger().record(*masks, decision)) == [decision, masks[1]]


@pytest.mark.parametrize(
    ("layer", "form", "ranks"),
    [
        (nn.ReLU(), "matrix", (1,)),
        (None, "matrix", (1,)),
        (nn.Linear(3, 4), "matrix", (4,)),
        (nn.Linear(3, 4), "spatial", (2,)),
        (nn.Linear(3, 4), "channel", (2,)),
        (nn.Conv2d(3, 4, 3), "matrix", (2,)),
        (nn.Conv1d(3, 4, 3), "spatial", (2,)),
        (nn.ConvTranspose2d(3, 4, 3), "channel", (2, 2)),
    ],
)
def test_another_network_than_was_compressed_is_refused(
    layer: nn.Module | None, form: str, ranks: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="this is not the network that was compressed"):
        chain(layer, Factored(layer="a", form=form, ranks=ranks))
