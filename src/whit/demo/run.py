"""The demo: from nothing to the table."""

from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from whit.cli.output import PLAN as PLAN_FILE
from whit.cli.output import read_result, write_run
from whit.cli.table import print_result
from whit.compress import compress
from whit.data import Data
from whit.demo.network import make_network
from whit.demo.prepare import Prepared, Settings, prepare
from whit.distill import Distill
from whit.formats import Int
from whit.plan import Plan
from whit.progress import Progress
from whit.ranges import Percentile
from whit.result import Result
from whit.steps import Finetune, FoldBatchNorm, Prune, Quantize
from whit.toml import dumps

__all__ = ["PLAN", "run"]

PLAN = Plan(
    Prune(amount=0.79, unit="channel"),
    Finetune(epochs=8, learning_rate=5e-3, batch_size=128, distill=Distill()),
    FoldBatchNorm(),
    Quantize(
        weights=Int(bits=4),
        activations=Int(bits=8, symmetric=False, per="tensor"),
        range=Percentile(percent=99.99),
    ),
    Finetune(epochs=1, learning_rate=5e-4, batch_size=128, distill=Distill()),
)
"""Four of five channels go, the original teaches the rest, and what is left becomes integers that it teaches again.

The widths were chosen on a fifth of the training sheets, held out.
"""


def run(
    folder: Path,
    progress: Progress | None = None,
    *,
    settings: Settings | None = None,
    plan: Plan = PLAN,
    console: Console | None = None,
) -> None:
    """Train a network on answer sheets, compress it and print what it was, what it is and what is possible.

    What an earlier run left in ``folder`` is reused: data, the trained network, and the result of the same plan.

    Args:
        folder: Where everything is kept; made if it is missing.
        progress: Shows what takes long.
        settings: Of the data and the network, if not those of the demo.
        plan: What to do.
        console: Where to print.
    """
    console, settings = console or Console(), settings or Settings()
    prepared = prepare(folder, progress, settings=settings)
    compressed = folder / f"compressed-{settings.fingerprint()[:8]}"
    if _is_there(compressed, plan):
        console.print(f"Reusing the result of an earlier run: {compressed}", highlight=False, soft_wrap=True)
        result = read_result(compressed)
    else:
        result = _compress(prepared, settings, plan, progress)
        write_run(result, compressed, overwrite=True, keep_original=True)
    console.print("IQ from answer sheets; mae is the mean error in IQ points.", highlight=False)
    print_result(result, console, limit=prepared.limit)
    console.print("The limit is the posterior mean of the model that drew the answers.", highlight=False)
    console.print(f"The network: {compressed / 'model.whit'}", highlight=False, soft_wrap=True)


def _is_there(compressed: Path, plan: Plan) -> bool:
    written = compressed / PLAN_FILE
    return written.is_file() and written.read_text(encoding="utf-8") == dumps(plan)


def _compress(prepared: Prepared, settings: Settings, plan: Plan, progress: Progress | None) -> Result[Any]:
    network = make_network(settings.seed, width=settings.width)
    network.load_state_dict(load_file(prepared.weights))
    return compress(network, plan, data=Data.load(prepared.train, prepared.test), metric="mae", progress=progress)
