"""A result as a table for people."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whit.decide import Skipped
from whit.errors import listed
from whit.measure import Latency
from whit.metrics import Metric
from whit.result import Result

__all__ = [
    "Row",
    "bytes_text",
    "call_text",
    "latency_text",
    "notes",
    "plain_table",
    "print_result",
    "quality_text",
    "ratio",
    "share_text",
    "table",
]

Row = tuple[str, str, str, str]
"""What is measured, before, after, and how the two compare."""

_MOST_REASONS = 6
_MOST_LAYERS = 3
_MOST_CHOICES = 100


def print_result(
    result: Result[Any],
    console: Console | None = None,
    *,
    limit: float | None = None,
    extra_rows: Sequence[Row] = (),
) -> None:
    """Print ``table(result, ...)`` and below it ``notes(result)``."""
    console = console or Console()
    console.print(table(result, limit=limit, extra_rows=extra_rows))
    for note in notes(result):
        console.print(Text(note))


def table(result: Result[Any], *, limit: float | None = None, extra_rows: Sequence[Row] = ()) -> Table:
    """Before, after and how the two compare.

    Args:
        result: What ``whit.compress`` returned.
        limit: The best quality that anything could reach, which gets a column of its own.
        extra_rows: Shown below the quality.
    """
    made = plain_table("before", "after", *(["limit"] if limit is not None else []), "")
    for place, (name, before, after, comparison) in enumerate([*_rows(result)[:1], *extra_rows, *_rows(result)[1:]]):
        bound = [] if limit is None else [quality_text(result.metric, limit) if place == 0 else ""]
        made.add_row(name, before, after, *bound, comparison)
    return made


def plain_table(*columns: str) -> Table:
    """An empty table of one column of names and one of numbers for each title; the last one is for words."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    made.add_column("", no_wrap=True)
    for title in columns[:-1]:
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column(columns[-1])
    return made


def _rows(result: Result[Any]) -> list[Row]:
    before, after, metric = result.before, result.after, result.metric
    rows: list[Row] = [
        (
            metric.name,
            quality_text(metric, before.quality),
            quality_text(metric, after.quality),
            _quality_change(metric, before.quality, after.quality),
        )
    ]
    for name, old, new in (
        ("bytes on disk", before.bytes, after.bytes),
        ("bytes as ONNX", before.bytes_onnx, after.bytes_onnx),
    ):
        rows.append((name, bytes_text(old), bytes_text(new), ratio(old, new, "smaller", "larger")))
    for name, old, new in (
        ("parameters", before.parameters, after.parameters),
        ("not zero", before.nonzero, after.nonzero),
        ("MACs", before.macs, after.macs),
    ):
        rows.append((name, f"{old:,}", f"{new:,}", ratio(old, new, "fewer", "more")))
    if before.memory is not None and after.memory is not None:
        change = ratio(before.memory, after.memory, "smaller", "larger")
        rows.append(("peak memory", bytes_text(before.memory), bytes_text(after.memory), change))
    old, new = before.latency_ms, after.latency_ms
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    rows.append((call_text(result), f"{old.median:.3f}", f"{new.median:.3f}", ratio(old.median, new.median)))
    rows.append((f"  {threads}, 5-95 %", _range(old), _range(new), ""))
    return rows


def call_text(result: Result[Any]) -> str:
    """What was timed."""
    call = "ms a sample" if result.batch == 1 else f"ms for {result.batch} samples"
    return call if result.runtime == "onnx" else f"{call}, {result.runtime}"


def notes(result: Result[Any]) -> list[str]:
    """Lines to stand below the table: parity, and what was skipped, one line a reason."""
    parity = result.parity
    lines = [
        f"ONNX Runtime and the framework agree on {share_text(parity.agreement)} of the test samples; outputs differ",
        f"by {parity.mean_abs:.2g} on average, {parity.max_abs:.2g} at most.",
    ]
    lines += [*_slower(result), *_bits(result)]
    reasons = _grouped(result.skipped)
    for (step, reason), layers in list(reasons.items())[:_MOST_REASONS]:
        lines.append(f"Skipped by {step}: {listed(layers, most=_MOST_LAYERS)}: {reason}.")
    if len(reasons) > _MOST_REASONS:
        lines.append(f"{len(reasons) - _MOST_REASONS} more reasons for skipping layers are in the result.")
    return lines


def _slower(result: Result[Any]) -> list[str]:
    """What integers cost where they do not pay, and what to do."""
    if result.slowdown is None or result.floating_ms is None:
        return []
    times = f"{result.after.latency_ms.median:.3f} ms against {result.floating_ms.median:.3f}"
    advice = (
        "run floating.onnx (result.faster_onnx) and keep the .whit for its bytes, or leave activations out of Quantize"
    )
    return [f"In integers it is {result.slowdown:.2f}x slower than in floating point here, {times}: {advice}."]


def _bits(result: Result[Any]) -> list[str]:
    """What layers chose, those of one width on a line, with how much the loss grows by them alone."""
    lines: list[str] = []
    for bits in sorted({one.bits for one in result.bits}):
        chosen = [one for one in result.bits if one.bits == bits]
        names = listed((f"{one.layer} ({one.growth:.2g})" for one in chosen), most=_MOST_CHOICES)
        width = "Floating point" if bits == 32 else f"{bits} bits"  # integers have at most 16
        lines.append(f"{width}, chosen by what the loss grows by: {names}.")
    return lines


def _grouped(skipped: Iterable[Skipped]) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for one in skipped:
        layers = groups.setdefault((one.step, one.reason), [])
        if one.layer not in layers:
            layers.append(one.layer)
    return groups


def bytes_text(size: int) -> str:
    """Bytes for people, in powers of 1000.

    >>> bytes_text(999), bytes_text(58_130), bytes_text(5_240_000)
    ('999 B', '58.1 KB', '5.24 MB')
    """
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def quality_text(metric: Metric, value: float) -> str:
    """A quality for people: accuracy in percent, others to four digits.

    >>> from whit.metrics import Accuracy, MeanAbsoluteError
    >>> quality_text(Accuracy(), 0.91734), quality_text(MeanAbsoluteError(), 4.5678)
    ('91.73 %', '4.568')
    """
    return f"{value:.2%}".replace("%", " %") if metric.name == "accuracy" else f"{value:.4g}"


def latency_text(time: Latency) -> str:
    """A latency for people: the median, and the 5th and 95th percentile."""
    return f"{time.median:.3f} ms ({_range(time)})"


def share_text(value: float) -> str:
    """A share for people.

    >>> share_text(1.0), share_text(0.9973)
    ('all', '99.73 %')
    """
    return "all" if value == 1 else f"{value:.2%}".replace("%", " %")


def ratio(before: float, after: float, less: str = "faster", more: str = "slower") -> str:
    """How two amounts compare.

    >>> ratio(42, 2, "smaller", "larger"), ratio(1, 1.25), ratio(3, 3)
    ('21.0x smaller', '1.25x slower', 'the same')
    """
    if before <= 0 or after <= 0:
        return ""
    times, word = (before / after, less) if after <= before else (after / before, more)
    text = f"{times:.0f}" if times >= 100 else f"{times:.1f}" if times >= 10 else f"{times:.2f}"
    return "the same" if text == "1.00" else f"{text}x {word}"


def _quality_change(metric: Metric, before: float, after: float) -> str:
    if metric.name == "accuracy":
        points = (after - before) * 100
        return f"{abs(points):.2f} points {'higher' if points > 0 else 'lower'}" if points else "the same"
    if not before:
        return ""
    change = after / before - 1
    return f"{abs(change):.2%} {'higher' if change > 0 else 'lower'}".replace("%", " %") if change else "the same"


def _range(time: Latency) -> str:
    return f"{time.low:.3f}-{time.high:.3f}"
