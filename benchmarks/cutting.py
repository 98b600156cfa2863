"""Half the channels cut out of a ResNet-50 and a ViT-B, random weights: seconds, and peak memory in units of the model.

From a module to a smaller one with the proof that it computes the same: the copy that is edited, the graph, the
coupling, the score, the cut on a copy beside the same channels zeroed on another, and the edit. Each runs in a process
of its own. Memory is the most that the process holds beyond the model that is given and what libraries take, for which
a small network is cut before.

    python benchmarks/cutting.py --json rows.json
"""

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from environment import arguments, report
from models.imagenet import ResNet50
from models.vit import ViTB
from torch import nn

from whit import Magnitude, Prune, Taylor
from whit.data import Samples
from whit.decide.proof import Proven, proven_cuts
from whit.decide.scoring import Evidence
from whit.torch.network import TorchNetwork

MODELS = {"resnet50": ResNet50, "vit-b": ViTB}
SCORES = {"magnitude": Magnitude(), "taylor": Taylor()}
SAMPLES = 16
"""That Taylor looks at."""


def main() -> None:
    """Measure every model with every score and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--scores", default=",".join(SCORES), help="comma-separated")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), max_tasks_per_child=1) as own:
        for model in options.models.split(","):
            for score in options.scores.split(","):
                rows.append(own.submit(measure, model, score).result())
                print(rows[-1], flush=True)
    report(rows, options.json)


def measure(model: str, score: str) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 224, 224), np.float32)
    samples = Samples((images,), np.arange(SAMPLES, dtype=np.int64))
    small = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.ReLU(), nn.Flatten(), nn.Linear(784, SAMPLES))
    cut(TorchNetwork.of(small, samples), samples, score)
    module = MODELS[model]().eval()
    before = peak()
    size = sum(parameter.numel() for parameter in module.parameters())
    start, cores = perf_counter(), process_time()
    network = TorchNetwork.of(module, samples)
    seconds = {"copy": perf_counter() - start}
    macs = network.graph().macs()
    seconds["graph"] = perf_counter() - start - sum(seconds.values())
    proven = cut(network, samples, score)
    seconds["choice and proof"] = perf_counter() - start - sum(seconds.values())
    network.apply_(proven.decisions)
    seconds["edit"] = perf_counter() - start - sum(seconds.values())
    found = {"seconds": perf_counter() - start, "core seconds": process_time() - cores}
    left = sum(x.size for x in network.parameters().values())
    about = {"model": model, "score": score, "parameters": size, "left": left, "groups": len(proven.cuts)}
    memory = (peak() - before) / (4 * size)
    return about | {"times fewer macs": macs / network.graph().macs()} | found | seconds | {"memory": memory}


def cut(network: TorchNetwork, samples: Samples, score: str) -> Proven:
    """Half the channels, chosen and proven."""
    evidence = Evidence(samples=samples, most=SAMPLES, loss="cross_entropy")
    return proven_cuts(Prune(amount=0.5, unit="channel", score=SCORES[score]), network, evidence)


def peak() -> int:
    """The most bytes this process has held at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
