"""What a search leaves in its folder beside its record, and what it prints."""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from whit.cli.output import foreign, write_into
from whit.cli.table import bytes_text, call_text, plain_table, print_result
from whit.errors import OutputError, listed
from whit.metrics import Metric
from whit.search.budget import Spent
from whit.search.found import Found, Point
from whit.search.searching import FILES
from whit.search.trials import RECORD
from whit.store import write_whole
from whit.toml import dumps

__all__ = ["FRONT", "check_resumable", "print_found", "write_found"]

FRONT = "front"
"""The folder of the plans on the front."""
_OURS = frozenset({FRONT, *FILES, f"{RECORD}-journal"})


def check_resumable(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder's full path, once it is known that a search can begin or go on there; to be asked before.

    Raises:
        OutputError: It holds something else than a search, or with ``overwrite`` what no search wrote.
    """
    folder = Path(folder).resolve()
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose the name of a folder")
    others = foreign(folder, _OURS)
    if others or (not overwrite and any(folder.iterdir()) and not (folder / RECORD).exists()):
        held = f"what no search wrote ({listed(others)})" if others else "a run that was no search"
        raise OutputError(f"{folder} holds {held}; choose another folder")
    if overwrite:
        shutil.rmtree(folder)
    return folder


def write_found(found: Found[Any], folder: Path, *, keep_original: bool = False) -> None:
    """Write the best network into a search's folder as ``whit compress`` would, and the plans on the front.

    Raises:
        OutputError: The folder cannot be written.
    """
    plans = folder / FRONT
    try:
        shutil.rmtree(plans, ignore_errors=True)
        plans.mkdir(parents=True)
        for place, point in enumerate(found.front, 1):
            write_whole(plans / f"{place}.toml", dumps(point.plan).encode())
    except OSError as error:
        raise OutputError(f"cannot write {plans}: {error}") from error
    write_into(found.best, folder, keep_original=keep_original)


def print_found(found: Found[Any], console: Console | None = None) -> None:
    """Print the front, the table of the best, and by how much it misses the budget if it does."""
    console = console or Console()
    metric = found.best.metric
    console.print(f"{found.trials} plans tried for {found.budget}; on the validation samples:", highlight=False)
    memory = ("memory",) if found.budget.counts("memory") else ()
    shown = plain_table("bytes", call_text(found.best), "MACs", *memory, f"{metric.name} lost", "")
    for place, point in enumerate(found.front, 1):
        shown.add_row(str(place), *_cells(point, metric), _remark(point, found))
    console.print(shown)
    console.print("On the test samples, which nothing was chosen by:")
    print_result(found.best, console)
    for line in _missing(found):
        console.print(Text(line))


def _cells(point: Point, metric: Metric) -> list[str]:
    spent = point.spent
    memory = [] if spent.memory is None else [bytes_text(spent.memory)]
    return [f"{spent.bytes:,}", f"{spent.latency_ms:.3f}", f"{spent.macs:,}", *memory, _drop(spent, metric)]


def _drop(spent: Spent, metric: Metric) -> str:
    if metric.name == "accuracy":
        return f"{100 * spent.drop:.2f} points"
    return f"{100 * spent.relative_drop:.2f} %"


def _remark(point: Point, found: Found[Any]) -> str:
    if point.trial == found.chosen.trial:
        return "chosen"
    return "over the budget" if found.budget.missed(point.spent) else ""


def _missing(found: Found[Any]) -> list[str]:
    """What was not reached, and by how much."""
    lines: list[str] = []
    if found.missed_choosing:
        lines.append(
            f"No plan that was tried keeps to {found.budget}. The nearest misses {_over(found.missed_choosing)} on the "
            "validation samples; allow more, or give it more time."
        )
    if found.missed:
        lines.append(f"On the test samples it misses {_over(found.missed)}.")
    if found.failures:
        lines.append(f"Some plans came to nothing: {listed(found.failures, most=2)}")
    return lines


def _over(missed: Any) -> str:
    units = {
        "drop": lambda over: f"the drop by {over:.4g}",
        "relative_drop": lambda over: f"the drop by {100 * over:.3g} %",
        "bytes": lambda over: f"the bytes by {bytes_text(int(over))}",
        "latency_ms": lambda over: f"the latency by {over:.3g} ms",
        "macs": lambda over: f"the MACs by {int(over):,}",
        "memory": lambda over: f"the peak memory by {bytes_text(int(over))}",
    }
    return " and ".join(units[name](over) for name, over in missed.items())
