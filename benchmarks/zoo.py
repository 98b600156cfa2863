"""Structured pruning of many architectures: which are cut, whether the cut is exact, whether it exports and runs.

Every architecture has random weights and two samples of the smallest input that it accepts. whit makes parameters of
the weights that layers compute (``FoldParametrizations``) and cuts ``--amount`` of the channels of every group by
magnitude; what is left has to compute what the network with the same channels zeroed computes, has to export to ONNX,
and ONNX Runtime has to compute the same from the file. With ``--peer`` Torch-Pruning does the same in a second row: the
classifier is left alone, and it is told the heads of fused query-key-value layers, but nothing is mended by hand
afterwards. Its network counts as pruned if it runs and is smaller.

A network that keeps more than 95 % of its parameters counts as frozen, whatever was cut.

Each architecture runs in a process of its own, which may use ``--limit`` seconds of processor time. ``--resume`` keeps
the rows of FILE and goes on. Needs timm==1.0.31 (and for it a torchvision that can be imported) and
transformers==5.24.0; ``--peer`` needs torch-pruning==1.6.1.
"""

import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from architectures import FAMILIES, TIMM, build
from environment import arguments
from torch import Tensor, nn

TOLERANCE = 1e-4
FROZEN = 0.95
"""Share of the parameters; a network that keeps more of them counts as frozen."""
PATIENCE = 20
"""Seconds on the clock for each of processor time, on a machine that others use too."""
COLUMNS = (
    "status",
    "reason",
    "parameters_before",
    "parameters_after",
    "macs_ratio",
    "sliced_equals_masked",
    "exported",
)


def main() -> None:
    """Try every architecture, write the rows as they come, and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, metavar="FILE", help="names of architectures, one a line")
    parser.add_argument("--amount", type=float, default=0.3, help="share of the channels to cut")
    parser.add_argument("--limit", type=int, default=300, help="seconds of processor time for an architecture")
    parser.add_argument("--peer", action="store_true", help="Torch-Pruning as well")
    parser.add_argument("--resume", action="store_true", help="keep the rows that FILE has")
    options = parser.parse_args()
    names = [*TIMM, *(f"transformers:{family}" for family in FAMILIES)]
    if options.models is not None:
        names = options.models.read_text(encoding="utf-8").split()
    tools = {"whit": by_whit} | ({"torch-pruning": by_torch_pruning} if options.peer else {})
    rows: list[dict[str, Any]] = []
    if options.resume and options.json is not None and options.json.exists():
        rows = json.loads(options.json.read_text(encoding="utf-8"))
    done = {(row["model"], row["tool"]) for row in rows}
    for name in names:
        for tool, prune in tools.items():
            if (name, tool) in done:
                continue
            row = {"model": name, "tool": tool, **apart(prune, name, options.amount, options.limit)}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print_table(rows)


def apart(prune: Callable[..., dict[str, Any]], name: str, amount: float, limit: int) -> dict[str, Any]:
    """What a tool makes of an architecture, in a process of its own."""
    # Forked, a process need not import the frameworks again; one thread each, so that no lock is held then.
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    start = perf_counter()
    process = context.Process(target=_report, args=(there, prune, name, amount, limit))
    process.start()
    there.close()
    found: dict[str, Any] = dict.fromkeys(COLUMNS)
    try:
        if not here.poll(PATIENCE * limit):
            raise EOFError
        found |= here.recv()
    except EOFError:
        process.join(1)
        stopped = process.is_alive() or process.exitcode == -signal.SIGXCPU
        found |= {"status": "failed", "reason": f"stopped after {limit} s" if stopped else "the process died"}
    if process.is_alive():
        process.kill()
    process.join()
    return found | {"seconds": round(perf_counter() - start, 1)}


def _report(there: Connection, prune: Callable[..., dict[str, Any]], name: str, amount: float, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    warnings.simplefilter("ignore")
    try:
        found = prune(*build(name), amount)
        if found["parameters_after"] > FROZEN * found["parameters_before"]:
            found["status"] = "frozen"
        there.send(found)
    except Exception as error:  # whatever it is, it is the row's reason
        reason = (str(error).strip() or "no message").splitlines()[0][:300]
        there.send({"status": "failed", "reason": f"{type(error).__name__}: {reason}"})


def by_whit(module: nn.Module, inputs: tuple[Tensor, ...], amount: float) -> dict[str, Any]:
    """Prune with whit."""
    from whit import Prune
    from whit.data import Samples
    from whit.decide import plain
    from whit.decide.channels import macs_after
    from whit.decide.proof import mask_, proven_cuts
    from whit.decide.scoring import Evidence
    from whit.ledger import Ledger
    from whit.metrics import named
    from whit.torch.network import TorchNetwork

    samples = Samples(tuple(x.numpy() for x in inputs), np.zeros(len(inputs[0]), np.int64))
    network = TorchNetwork.of(module, samples)
    given = network.predict(samples)
    network.apply_(plain(network)[0])
    exact = close(given, network.predict(samples))
    graph = network.graph()
    step = Prune(amount=amount, unit="channel")
    evidence = Evidence(samples=samples, most=len(samples), loss=named("accuracy").loss)
    proven = proven_cuts(step, network, evidence)
    masked = network.copy()
    mask_(masked, proven.cuts)
    network.apply_(proven.decisions)
    reasons = Counter(one.reason for one in proven.skipped)
    found = {
        "status": "pruned" if proven.cuts else "frozen",
        "reason": "; ".join(f"{count} layers: {reason}" for reason, count in reasons.most_common(3)),
        "parameters_before": parameters(module),
        "parameters_after": parameters(network.module),
        "macs_ratio": round(macs_after(proven.cuts, graph) / max(graph.macs(), 1), 4),
        "sliced_equals_masked": exact and close(masked.predict(samples), network.predict(samples)),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            network.export(path, Ledger())
            found["exported"] = runs(path, inputs, network.predict(samples))
        except Exception as error:
            found["exported"] = False
            found["reason"] += f"; export: {(str(error).splitlines() or [''])[0][:200]}"
    return found


def by_torch_pruning(module: nn.Module, inputs: tuple[Tensor, ...], amount: float) -> dict[str, Any]:
    """Prune with Torch-Pruning."""
    import torch_pruning

    before = parameters(module)
    with torch.no_grad():
        classes = module(*inputs).shape[-1]
    layers = [one for one in module.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    classifiers = [one for one in layers if one.weight.shape[0] == classes][-1:]
    heads = {one.qkv: one.num_heads for one in module.modules() if hasattr(one, "qkv") and hasattr(one, "num_heads")}
    macs, _ = torch_pruning.utils.count_ops_and_params(module, inputs if len(inputs) > 1 else inputs[0])
    pruner = torch_pruning.pruner.MagnitudePruner(
        module,
        inputs if len(inputs) > 1 else inputs[0],
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=amount,
        ignored_layers=classifiers,
        num_heads=heads,
    )
    pruner.step()
    with torch.no_grad():
        expected = module(*inputs).numpy()
    left, _ = torch_pruning.utils.count_ops_and_params(module, inputs if len(inputs) > 1 else inputs[0])
    found = {
        "status": "pruned" if parameters(module) < before else "frozen",
        "reason": "",
        "parameters_before": before,
        "parameters_after": parameters(module),
        "macs_ratio": round(left / max(macs, 1), 4),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(module, inputs, path, dynamo=True, optimize=False, verbose=False)
            found["exported"] = runs(path, inputs, expected)
        except Exception as error:
            found["exported"] = False
            found["reason"] = f"export: {(str(error).splitlines() or [''])[0][:200]}"
    return found


def parameters(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(one.numel() for one in module.parameters())


def runs(path: Path, inputs: Sequence[Tensor], expected: np.ndarray) -> bool:
    """Whether ONNX Runtime computes what the module computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = dict(zip((one.name for one in session.get_inputs()), (x.numpy() for x in inputs), strict=True))
    return close(expected, session.run(None, arrays)[0], 1e-3)


def close(expected: np.ndarray, found: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Whether outputs are the same, relative to the largest."""
    scale = max(1.0, float(np.abs(expected).max()))
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= tolerance * scale


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A row an architecture, how many each tool pruned, and all that it did not, by name."""
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    found = {(row["model"], row["tool"]): row for row in rows}
    heads = [f"{tool}: {what}" for tool in tools for what in ("parameters left", "MACs left", "exact", "runs")]
    print("| architecture | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = [cell for tool in tools for cell in _cells(found.get((model, tool)))]
        print(f"| {model} | " + " | ".join(cells) + " |")
    for tool in tools:
        mine = [row for row in rows if row["tool"] == tool]
        good = [row for row in mine if works(row)]
        left = [row["parameters_after"] / row["parameters_before"] for row in good]
        print(f"\n{tool}: {len(good)} of {len(mine)} pruned, exact and exported", end="")
        print(f"; of their parameters {float(np.median(left)):.0%} are left (median)" if left else "")
        for row in mine:
            if not works(row):
                checks = f"sliced equals masked: {row['sliced_equals_masked']}, exported: {row['exported']}"
                print(f"- {row['model']}: {row['status']}, {checks}; {row['reason']}")


def _cells(row: dict[str, Any] | None) -> list[str]:
    """What is left of a network, and whether that is exact and runs."""
    if row is None:
        return ["not run", "", "", ""]
    if row["status"] == "failed":
        return ["failed", "", "", ""]
    left = row["parameters_after"] / row["parameters_before"]
    words = {True: "yes", False: "no", None: ""}
    return [f"{left:.2f}", f"{row['macs_ratio']:.2f}", words[row["sliced_equals_masked"]], words[row["exported"]]]


def works(row: dict[str, Any]) -> bool:
    """Whether an architecture was pruned, exactly, and exported."""
    return row["status"] == "pruned" and row["sliced_equals_masked"] is not False and row["exported"] is True


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
