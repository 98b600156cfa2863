"""Steps of a training of ResNet-20 by one process and by two of one thread each, which share every batch of 128.

Processor time is that of the first process, so that it says what sharing costs also where other work is running; on
free cores wall time is what counts. One and two take turns.

    python benchmarks/together.py --json rows.json
"""

import json
import os
import socket
import subprocess
import sys
from statistics import median
from time import perf_counter, process_time
from typing import Any

from environment import HERE, arguments, report
from size import network, samples

import whit
from whit.ledger import Ledger
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.torch.network import TorchNetwork

FEW, MANY = 2, 22
"""Steps of the two trainings whose difference is timed."""


def main() -> None:
    """Time one and two processes in turn and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    parser.add_argument("--worker", action="store_true", help="be one of the processes")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(timed()))
        return
    found: dict[int, list[list[float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for count, rows in found.items():
            rows.append(started(count))
    rows: list[dict[str, Any]] = []
    for count, each in found.items():
        wall, processor = (median(one[place] for one in each) for place in (0, 1))
        rows.append({"processes": count, "ms a step": 1000 * wall, "processor ms a step": 1000 * processor})
    for row in rows:
        for name in ("ms a step", "processor ms a step"):
            row[f"times fewer {name}"] = rows[0][name] / row[name]
    report(rows, options.json)


def started(count: int) -> list[float]:
    """Wall and processor seconds of a step by so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "together.py"), "--worker"]
    rank = {"TORCHELASTIC_RUN_ID": "benchmark", "WORLD_SIZE": str(count)}
    running = [
        subprocess.Popen(command, env=os.environ | place | rank | {"RANK": str(one)}, stdout=subprocess.PIPE, text=True)
        for one in range(count)
    ]
    printed = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        sys.exit("a process of the training failed; what it says stands above")
    return json.loads(printed[0])


def timed() -> list[float]:
    """Wall and processor seconds of a step in this process, by the difference of two trainings."""
    data = samples(choosing=True)
    net = TorchNetwork.of(network("resnet20"), data.train)
    ends: list[tuple[float, float]] = []
    for steps in (1, FEW, MANY):  # the first warms up
        step = whit.Finetune(epochs=steps * 128 / len(data.train), batch_size=128, optimizer="sgd")
        start = perf_counter(), process_time()
        net.finetune_(step, data.train, Accuracy(), Ledger(), net, Progress())
        ends.append((perf_counter() - start[0], process_time() - start[1]))
    return [(ends[2][place] - ends[1][place]) / (MANY - FEW) for place in (0, 1)]


if __name__ == "__main__":
    main()
