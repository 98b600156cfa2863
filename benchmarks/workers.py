"""What workers are worth: ResNet-20's sensitivities at three widths by one and by two of them, in tasks a second.

Every worker has one thread. Weights and images come from ``WHIT_DATA``.

    python benchmarks/workers.py --json rows.json
"""

from statistics import median
from time import perf_counter
from typing import Any

from environment import arguments, report
from size import network, samples

from whit import Int, Quantize
from whit.decide.sensitivity import Trials
from whit.progress import Progress
from whit.torch.network import TorchNetwork
from whit.workers import Processes, Ray, Workers

KINDS = {
    "processes, 1": lambda: Processes(1),
    "processes, 2": lambda: Processes(2),
    "ray, 1": lambda: Ray("local", count=1),
    "ray, 2": lambda: Ray("local", count=2),
}


def main() -> None:
    """Time each and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=";".join(KINDS), help="with semicolons between")
    parser.add_argument("--samples", type=int, default=2048, help="images that every trial looks at")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the median counts")
    options = parser.parse_args()
    data = samples().train
    net = TorchNetwork.of(network("resnet20"), data)
    uses = [Quantize(weights=Int(bits=bits), samples=options.samples) for bits in (2, 4, 8)]
    trials = Trials(uses, net.graph().layers(), net, data, "cross_entropy", measured=True)
    kinds = options.kinds.split(";")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            times[kind].append(timed(trials, KINDS[kind]()))
            print(kind, times[kind], flush=True)
    report([row(kind, times, len(uses) * len(trials.layers)) for kind in kinds], options.json)


def timed(trials: Trials, workers: Workers) -> float:
    """Seconds of all trials, with the start of the workers."""
    start = perf_counter()
    trials.run(Progress(), workers)
    return perf_counter() - start


def row(kind: str, times: dict[str, list[float]], count: int) -> dict[str, Any]:
    """What one kind took, beside one worker of the same kind."""
    seconds = median(times[kind])
    alone = median(times.get(kind.replace("2", "1"), times[kind]))
    return {
        "workers": kind,
        "trials": count,
        "seconds": seconds,
        "trials a second": count / seconds,
        "times": alone / seconds,
    }


if __name__ == "__main__":
    main()
