"""Budgets: read and written as text, refused where nothing meets them, and what misses them and by how much."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from whit import Budget, PlanError
from whit.measure import Figures, Latency
from whit.metrics import Accuracy, MeanAbsoluteError
from whit.search.budget import FIGURES, Spent, spent

shares = st.none() | st.floats(0, 10, allow_subnormal=False)
counts = st.none() | st.integers(1, 10**12)
times = st.none() | st.floats(1e-6, 1e6)

SPENT = Spent(drop=0.004, relative_drop=0.005, bytes=1000, latency_ms=1.0, macs=500)


moments = times | st.sampled_from([60.0, 3600.0])


@given(shares, shares, counts, times, counts, counts, moments, st.sampled_from(FIGURES))
def test_a_budget_is_read_back_from_its_text(drop, relative, size, latency, macs, memory, seconds, minimize):
    try:
        budget = Budget(
            drop=drop,
            relative_drop=relative,
            bytes=size,
            latency_ms=latency,
            macs=macs,
            memory=memory,
            seconds=seconds,
            minimize=minimize,
        )
    except PlanError:
        assume(False)
    assert Budget.of(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("drop<=0.5pt", Budget(drop=0.005, minimize="bytes")),
        ("drop<=0.1", Budget(drop=0.1)),
        ("drop <= 1%, minimize = latency", Budget(relative_drop=0.01, minimize="latency")),
        ("bytes<=240KB", Budget(bytes=240_000, minimize="drop")),
        ("bytes<=1.5kb,latency<=200us", Budget(bytes=1500, latency_ms=0.2)),
        ("drop<=1%, memory<=50MB, minimize=memory", Budget(relative_drop=0.01, memory=50_000_000, minimize="memory")),
        ("macs<=20M, time<=60min", Budget(macs=20_000_000, seconds=3600)),
        ("drop<=0%, time<=1.5h, minimize=macs", Budget(relative_drop=0.0, seconds=5400, minimize="macs")),
    ],
)
def test_what_texts_mean(text, budget):
    assert Budget.of(text) == budget


def test_a_budget_is_taken_as_it_is():
    budget = Budget(bytes=3)
    assert Budget.of(budget) is budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a limit; a budget reads drop<=1%, bytes<=240KB"),
        ("small", "'small' is not a limit"),
        ("size<=3KB", "a budget knows no 'size', but drop, bytes, latency, macs, memory, time, minimize"),
        ("memory<=1.5", "memory is a count, and 1.5 is no whole number"),
        ("bytes=3KB", "limits are written with <="),
        ("minimize<=bytes", "minimize with ="),
        ("bytes<=much", "'much' is not a number with a unit"),
        ("bytes<=-3", "'-3' is not a number"),
        ("bytes<=3ms", "the unit of bytes is one of none, 'B', 'KB', 'MB', 'GB', not ms"),
        ("latency<=3", "the unit of latency is one of 'us', 'ms', 's', not none"),
        ("drop<=3KB", "the unit of drop is one of '%', 'pt', none"),
        ("bytes<=1.5", "bytes is a count, and 1.5 is no whole number"),
        ("bytes<=3KB, bytes<=4KB", "speaks of bytes twice"),
        ("drop<=1%, minimize=size", "choose one of drop, bytes, latency, macs, memory"),
        ("drop<=1e999", "nothing keeps to that"),
        ("bytes<=0", r"Budget\(bytes=0\): nothing keeps to that; it is 1 or more"),
        ("latency<=0ms", "it is a positive number"),
    ],
)
def test_texts_that_are_no_budget_are_refused_with_what_to_write(text, message):
    with pytest.raises(PlanError, match=message):
        Budget.of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop<=1%, drop<=0.5pt", "give one of them"),
        ("minimize=bytes", "needs a limit for the drop"),
        ("latency<=2ms, minimize=bytes", "needs a limit for the drop"),
        ("minimize=drop", "met by the original network"),
        ("drop<=1%, minimize=drop", "met by the original network"),
        ("time<=5min", "met by the original network"),
    ],
)
def test_limits_that_contradict_each_other_or_say_nothing_are_refused(text, message):
    with pytest.raises(PlanError, match=message):
        Budget.of(text)


def figures(quality: float) -> Figures:
    time = Latency(median=1.0, low=0.9, high=1.1)
    return Figures(parameters=9, nonzero=9, bytes=1000, bytes_onnx=1, macs=500, latency_ms=time, quality=quality)


def test_a_drop_is_what_is_worse_whichever_way_the_metric_goes():
    worse = spent(Accuracy(), figures(0.8), figures(0.75))
    assert (worse.drop, worse.relative_drop) == pytest.approx((0.05, 0.0625))
    assert (worse.bytes, worse.latency_ms, worse.macs) == (1000, 1.0, 500)
    assert spent(MeanAbsoluteError(), figures(4.0), figures(5.0)).relative_drop == 0.25
    assert spent(Accuracy(), figures(0.75), figures(0.8)).drop < 0
    assert spent(MeanAbsoluteError(), figures(0.0), figures(0.1)).drop == pytest.approx(0.1)


def test_what_is_over_a_limit_is_named_in_the_unit_of_the_limit():
    budget = Budget(drop=0.001, bytes=900, latency_ms=1.0, macs=501)
    assert budget.missed(SPENT) == {"drop": pytest.approx(0.003), "bytes": 100}
    assert budget.distance(SPENT) == pytest.approx(0.003 / (0.01 * 0.8) + 100 / 900)  # a quality of 0.8: 0.004 / 0.005
    assert Budget(bytes=1000).missed(SPENT) == {}
    assert Budget(bytes=1000).distance(SPENT) == 0


def test_a_figure_that_is_no_number_keeps_to_no_limit():
    assert list(Budget(drop=0.5).missed(replace(SPENT, drop=float("nan")))) == ["drop"]


@pytest.mark.parametrize(("minimize", "value"), [("drop", 0.004), ("bytes", 1000), ("latency", 1.0), ("macs", 500)])
def test_the_figure_that_is_to_be_least(minimize, value):
    assert Budget(drop=1.0, bytes=10**6, minimize=minimize).least(SPENT) == value
