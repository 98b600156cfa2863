import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

import whit
from whit import Int, ModelError, WeightsError
from whit.torch.sources import load_weights_, model_from

BATCH = ({0: Dim("batch")},)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.depth(self.stem(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    net(torch.randn(32, 3, 8, 8))  # the batch normalisation has seen something
    return net.eval()


@pytest.fixture(scope="module")
def exported(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=BATCH), path)
    return path


def test_an_exported_program_computes_the_same_under_the_same_names(net: Net, exported: Path) -> None:
    module = model_from(str(exported))
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(module(x), net(x))
    assert module.state_dict().keys() == net.state_dict().keys()


def test_the_layers_of_an_exported_program_are_modules_again(exported: Path) -> None:
    module = model_from(str(exported))
    for name in ("stem.0", "stem.1", "depth", "head"):
        assert type(module.get_submodule(name)) is type(Net().get_submodule(name))


def test_every_step_works_on_an_exported_program_as_on_its_source(net: Net, exported: Path) -> None:
    generator = np.random.default_rng(0)
    data = whit.Data.split(generator.normal(size=(60, 3, 8, 8)).astype(np.float32), generator.integers(0, 4, 60))
    plan = whit.Plan(
        whit.FoldBatchNorm(),
        whit.Prune(amount=0.5, unit="channel"),
        whit.Prune(amount=0.25),
        whit.Quantize(activations=Int(bits=8, symmetric=False, per="tensor")),
        whit.Finetune(epochs=1, distill=whit.Distill()),
    )
    results = [whit.compress(module, plan, data=data) for module in (net, model_from(str(exported)))]
    first, second = (result.after for result in results)
    assert (first.parameters, first.nonzero, first.macs) == (second.parameters, second.nonzero, second.macs)
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(results[0].model(x), results[1].model(x), rtol=0.02, atol=0.02)


def test_weights_go_into_an_exported_program_too(net: Net, exported: Path, tmp_path: Path) -> None:
    weights = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    module = model_from(str(exported), tmp_path / "w.safetensors")
    torch.testing.assert_close(module.state_dict()["head.bias"], net.head.bias.data + 1)


def test_a_name_may_be_missing_where_its_tensor_is_shared(tmp_path: Path) -> None:
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    state = {name: torch.full_like(tensor, 2.0) for name, tensor in tied.state_dict().items() if name != "b.weight"}
    save_file(state, tmp_path / "w.safetensors")
    load_weights_(tied, tmp_path / "w.safetensors")
    assert float(tied["b"].weight.detach().mean()) == 2.0
    save_file({name: x for name, x in state.items() if name != "a.weight"}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"lacks a\.weight, b\.weight"):
        load_weights_(tied, tmp_path / "w.safetensors")


def test_a_program_for_one_batch_size_is_refused(net: Net, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), tmp_path / "one.pt2")
    with pytest.raises(ModelError, match=r"batches of exactly 1.*dynamic_shapes"):
        model_from(str(tmp_path / "one.pt2"))


def test_a_program_that_is_cut_short_or_none_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    for content in (exported.read_bytes()[:-100], b"", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"not a whole \.pt2"):
            model_from(str(path))


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def rewritten(source: Path, path: Path, change: dict[str, bytes]) -> str:
    """A copy of an archive with some of its files changed or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        files = {name.partition("/")[2]: old.read(name) for name in old.namelist()} | change
        for name, content in files.items():
            new.writestr(f"{root}/{name}", content)
    return str(path)


@pytest.mark.parametrize(
    "place", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/opaque_obj_0", "version"]
)
def test_a_program_never_unpickles(exported: Path, tmp_path: Path, place: str) -> None:
    trap, stream = tmp_path / "trap", io.BytesIO()
    torch.save({"x": Evil(trap)}, stream)
    with pytest.raises(ModelError, match=r"does not open it"):
        model_from(rewritten(exported, tmp_path / "evil.pt2", {place: stream.getvalue()}))
    assert not trap.exists()


def test_weights_as_pickles_are_refused(exported: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with zipfile.ZipFile(exported) as archive:
        name = next(name for name in archive.namelist() if name.endswith("model_weights_config.json"))
        config = archive.read(name).replace(b'"use_pickle": false', b'"use_pickle": true')
    change = {"data/weights/model_weights_config.json": config, "data/weights/weight_0": pickle.dumps(Evil(trap))}
    with pytest.raises(ModelError, match="as a pickle"):
        model_from(rewritten(exported, tmp_path / "evil.pt2", change))
    assert not trap.exists()


def test_sizes_that_are_code_are_refused(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        program = archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json")))
    assert b"\"Symbol('" in program
    start = program.index(b"\"Symbol('")
    end = program.index(b'"', start + 1) + 1
    evil = program.replace(program[start:end], b"\"exec('import os')\"")
    with pytest.raises(ModelError, match="could run code"):
        model_from(rewritten(exported, tmp_path / "evil.pt2", {"models/model.json": evil}))
