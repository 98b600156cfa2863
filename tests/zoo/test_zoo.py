"""Architectures that others wrote: pruned, with what is cut the same as zeroed, exported, and run.

The whole list is in ``benchmarks/zoo.py``. These need transformers or timm, and are skipped where they are not there.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch

from whit import Prune
from whit.data import Samples
from whit.decide.proof import mask_, proven_cuts
from whit.decide.scoring import Evidence
from whit.ledger import Ledger
from whit.torch.network import TorchNetwork

ARCHITECTURES = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
NAMES = ["transformers:bert", "transformers:gpt2", "transformers:llama", "transformers:vit", "test_resnet", "test_vit"]


def architectures(name: str) -> ModuleType:
    """The benchmark's architectures, if the package is there that this one is from."""
    pytest.importorskip("transformers" if name.startswith("transformers") else "timm", exc_type=ImportError)
    spec = importlib.util.spec_from_file_location("architectures", ARCHITECTURES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_third_of_the_channels_is_cut_and_the_rest_computes_the_same(name: str, tmp_path: Path) -> None:
    module, inputs = architectures(name).build(name)
    samples = Samples(tuple(x.numpy() for x in inputs), np.zeros(len(inputs[0]), np.int64))
    network = TorchNetwork.of(module, samples)
    evidence = Evidence(samples=samples, most=2, loss="cross_entropy")
    proven = proven_cuts(Prune(amount=0.34, unit="channel"), network, evidence)
    masked = network.copy()
    mask_(masked, proven.cuts)
    network.apply_(proven.decisions)

    sizes = [sum(one.numel() for one in each.parameters()) for each in (module, network.module)]
    assert sizes[1] < 0.9 * sizes[0]
    # Samples that the cut was not proven on.
    torch.manual_seed(1)
    others = tuple(torch.randn_like(x) if x.is_floating_point() else torch.randint_like(x, 3, 60) for x in inputs)
    fresh = Samples(tuple(x.numpy() for x in others), np.zeros(len(inputs[0]), np.int64))
    outputs = network.predict(fresh)
    np.testing.assert_allclose(outputs, masked.predict(fresh), atol=1e-4 * max(1, np.abs(outputs).max()))

    network.export(tmp_path / "model.onnx", Ledger())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    arrays = dict(zip((one.name for one in session.get_inputs()), fresh.inputs, strict=True))
    np.testing.assert_allclose(session.run(None, arrays)[0], outputs, atol=1e-3 * max(1, np.abs(outputs).max()))
