from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from whit.cli.table import bytes_text, notes, print_result, ratio
from whit.decide import Skipped
from whit.measure import Figures, Latency
from whit.metrics import MeanAbsoluteError

BEFORE = Figures(
    parameters=1_300_000,
    nonzero=1_300_000,
    bytes=5_240_000,
    bytes_onnx=5_240_000,
    macs=98_000_000,
    latency_ms=Latency(median=2.5, low=2.25, high=3.0),
    quality=4.5,
)
AFTER = Figures(
    parameters=60_000,
    nonzero=50_000,
    bytes=52_400,
    bytes_onnx=104_800,
    macs=4_900_000,
    latency_ms=Latency(median=0.5, low=0.45, high=0.75),
    quality=4.545,
)


def printed(result: Any, **options: Any) -> list[str]:
    file = StringIO()
    print_result(result, Console(file=file, width=80), **options)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines: list[str], name: str) -> list[str]:
    return next(line.split()[len(name.split()) :] for line in lines if line.strip().startswith(name))


@pytest.fixture
def result(tiny_result: Any) -> Any:
    return replace(tiny_result, before=BEFORE, after=AFTER, metric=MeanAbsoluteError(), skipped=(), floating_ms=None)


def test_each_figure_stands_before_after_and_as_a_ratio(result: Any) -> None:
    lines = printed(result)
    assert row(lines, "mae") == ["4.5", "4.545", "1.00", "%", "higher"]
    assert row(lines, "bytes on disk") == ["5.24", "MB", "52.4", "KB", "100x", "smaller"]
    assert row(lines, "bytes as ONNX") == ["5.24", "MB", "105", "KB", "50.0x", "smaller"]
    assert row(lines, "parameters") == ["1,300,000", "60,000", "21.7x", "fewer"]
    assert row(lines, "MACs") == ["98,000,000", "4,900,000", "20.0x", "fewer"]
    assert row(lines, "ms a sample") == ["2.500", "0.500", "5.00x", "faster"]
    assert row(lines, "1 thread, 5-95 %") == ["2.250-3.000", "0.450-0.750"]


def test_it_fits_80_columns_with_a_limit_and_is_plain_text(result: Any) -> None:
    lines = printed(result, limit=4.41)
    assert row(lines, "mae") == ["4.5", "4.545", "4.41", "1.00", "%", "higher"]
    assert row(lines, "before") == ["after", "limit"]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_rows_of_the_caller_stand_below_the_quality(result: Any) -> None:
    lines = printed(result, extra_rows=[("correlation", "0.91", "0.90", "")])
    names = [line.split()[0] for line in lines if line.strip()]
    assert names.index("correlation") == names.index("mae") + 1


def test_skipped_layers_are_grouped_by_reason(result: Any) -> None:
    many = [Skipped(step="prune", layer=f"block{place}", reason="frozen by view") for place in range(30)]
    others = [Skipped(step="quantize", layer="head", reason=f"reason {place}") for place in range(9)]
    lines = notes(replace(result, skipped=(*many, *others)))
    assert "Skipped by prune: block0, block1, block2 and 27 more: frozen by view." in lines
    assert sum(line.startswith("Skipped") for line in lines) == 6
    assert lines[-1] == "4 more reasons for skipping layers are in the result."


def test_integers_that_are_slower_than_floats_are_reported_with_what_to_do(result: Any) -> None:
    slow = replace(result, floating_ms=Latency(median=0.4, low=0.4, high=0.4), onnx=b"int", floating_onnx=b"float")
    assert slow.slowdown == pytest.approx(1.25)
    assert slow.faster_onnx == b"float"
    said = " ".join(printed(slow))
    for words in ("1.25x slower", "0.500 ms against 0.400", "floating.onnx", "leave activations out"):
        assert words in said.replace("  ", " ")


@pytest.mark.parametrize("median", [0.49, 0.5, 0.6])
def test_integers_that_are_no_slower_but_for_noise_are_not_reported(result: Any, median: float) -> None:
    fast = replace(result, floating_ms=Latency(median=median, low=0.4, high=0.7), onnx=b"int", floating_onnx=b"float")
    assert fast.slowdown is None
    assert fast.faster_onnx == b"int"
    assert "slower" not in " ".join(notes(fast))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 KB"), (999_600, "1.00 MB"), (240_000, "240 KB"), (7 * 10**9, "7.00 GB")],
)
def test_bytes_for_people(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_a_ratio_says_which_way() -> None:
    assert ratio(1, 2, "smaller", "larger") == "2.00x larger"
    assert ratio(2, 1, "smaller", "larger") == "2.00x smaller"
    assert ratio(0, 1) == ""
