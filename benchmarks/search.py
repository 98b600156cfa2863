"""Searches by budget alone: ResNet-20 for bytes and for latency, the IQ demo for bytes, and a search killed 20 times.

Weights and images come from ``WHIT_DATA``; plans are chosen by training samples that are held out, and the figures are
those of the test samples. A search that was stopped goes on in its folder.

    python benchmarks/search.py bytes --workers 2 --folder runs/bytes --plot docs/search.png
    python benchmarks/search.py latency
    python benchmarks/search.py demo
    python benchmarks/search.py kills
"""

import argparse
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import size
import torch
from environment import HERE, report
from torch import nn

import whit
from whit import Data, Found, Processes
from whit.cli.bars import Bars
from whit.cli.searched import print_found, write_found
from whit.demo.network import make_network
from whit.demo.prepare import prepare
from whit.toml import dumps

KILLS = 20
COUNT = 8
"""Plans that the search which is killed tries."""


def main() -> None:
    """Search, print what was found, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(SEARCHES), help="which search")
    parser.add_argument("--time", help="in place of ours, such as 20min")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the search is kept; by default nowhere")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the front (needs matplotlib)")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="whit-benchmark-") as spare:
        options.folder = options.folder or Path(spare)
        report(SEARCHES[options.what](options), options.json)


def resnet_bytes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The smallest file within half a point."""
    budget = f"drop<=0.5pt, minimize=bytes, time<={options.time or '60min'}"
    return rows(searched(size.network("resnet20"), budget, size.samples(), "accuracy", options))


def resnet_latency(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The fastest network within a point."""
    budget = f"drop<=1pt, minimize=latency, time<={options.time or '20min'}"
    return rows(searched(size.network("resnet20"), budget, size.samples(), "accuracy", options))


def demo(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The smallest file of the demo's network within a hundredth of its error."""
    prepared = prepare(options.folder / "demo", Bars())
    model = make_network()
    model.load_state_dict(size.load_file(prepared.weights))
    budget = f"drop<=1%, minimize=bytes, time<={options.time or '20min'}"
    options.folder /= "search"
    return rows(searched(model, budget, Data.load(prepared.train, prepared.test), "mae", options))


def searched(model: nn.Module, budget: str, data: Data, metric: str, options: argparse.Namespace) -> Found[Any]:
    """What a search finds, printed and left in its folder."""
    workers = Processes(options.workers) if options.workers > 1 else None
    found = whit.search(
        model,
        budget,
        data=data,
        metric=metric,
        folder=options.folder,
        workers=workers,
        seed=options.seed,
        progress=Bars(),
    )
    write_found(found, options.folder)
    print_found(found)
    print(dumps(found.chosen.plan))
    if options.plot:
        draw(found, options.plot)
    return found


def rows(found: Found[Any]) -> list[dict[str, Any]]:
    """The front as chosen by, and what was chosen as it is on the test samples."""
    made = [
        {"on": "validation", "plan": str(place), "bytes": one.spent.bytes, "ms": one.spent.latency_ms}
        | {"quality lost": one.spent.drop, "quality": None, "times": None, "seconds": None}
        for place, one in enumerate(found.front, 1)
    ]
    best = found.best
    lost = (best.before.quality - best.after.quality) * (1 if best.metric.higher_is_better else -1)
    return [
        *made,
        {
            "on": "test",
            "plan": str(found.front.index(found.chosen) + 1),
            "bytes": best.after.bytes,
            "ms": best.after.latency_ms.median,
            "quality lost": lost,
            "quality": best.after.quality,
            "times": best.before.latency_ms.median / best.after.latency_ms.median,
            "seconds": found.seconds,
        },
    ]


def draw(found: Found[Any], path: Path) -> None:
    """The front, what was chosen on it, and what that came to on the test samples."""
    from matplotlib import pyplot

    timed = found.budget.minimize == "latency"
    unit = "ms a sample" if timed else "kilobytes"

    def place(bytes_: int, latency: float) -> float:
        return latency if timed else bytes_ / 1e3

    figure, panel = pyplot.subplots(figsize=(7, 4), layout="constrained")
    points = [(place(one.spent.bytes, one.spent.latency_ms), 100 * one.spent.drop) for one in found.front]
    panel.plot(*zip(*points, strict=True), "o-", label="the front, on validation samples")
    panel.plot(*points[found.front.index(found.chosen)], "s", markersize=11, fillstyle="none", label="chosen")
    last = rows(found)[-1]
    panel.plot(
        place(last["bytes"], last["ms"]), 100 * last["quality lost"], "*", markersize=13, label="on test samples"
    )
    if found.budget.drop is not None:
        panel.axhline(100 * found.budget.drop, color="gray", linestyle="--", label="what may be lost")
        panel.set_ylim(top=min(max(y for _, y in points), 12 * 100 * found.budget.drop) * 1.1)
    panel.set(xlabel=unit, ylabel=f"{found.best.metric.name} lost, points", title=str(found.budget))
    panel.grid(alpha=0.3)
    panel.legend()
    figure.savefig(path, dpi=120)


# A search that is killed


def waves() -> ModuleType:
    """The tests' own tiny network and its data."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    return importlib.import_module("waves")


def small_search(folder: Path) -> Found[Any]:
    """The search that is killed; it has no time limit, so nothing in it depends on the clock."""
    torch.set_num_threads(1)
    data = Data.of(*waves().drawn(600, 0), *waves().drawn(500, 1))
    return whit.search(waves().trained(), "drop<=3pt, minimize=bytes", data=data, folder=folder, trials=COUNT)


def kills(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Kill a search at random moments of its time, each in a folder of its own, and let it go on."""
    start = time.monotonic()
    whole = small_search(options.folder / "whole")
    seconds = time.monotonic() - start
    moments = random.Random(options.seed)
    made: list[dict[str, Any]] = []
    for place in range(KILLS):
        folder, after = options.folder / f"killed-{place}", moments.uniform(0, seconds)
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import search; from pathlib import Path; "
        code += f"search.small_search(Path({str(folder)!r}))"
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.DEVNULL)
        try:
            process.wait(after)
            killed = False
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed = True
        again = small_search(folder)
        same = (again.chosen.trial, again.best.file) == (whole.chosen.trial, whole.best.file)
        made.append({"kill": place + 1, "after": after, "killed": killed, "same plan and bytes": same})
        print(made[-1], flush=True)
    assert all(row["same plan and bytes"] for row in made)
    return made


SEARCHES: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "bytes": resnet_bytes,
    "latency": resnet_latency,
    "demo": demo,
    "kills": kills,
}

if __name__ == "__main__":
    main()
