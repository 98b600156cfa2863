"""The demo, small: from an empty folder to the table, and again from what is there."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from whit.demo.prepare import Settings
from whit.demo.run import PLAN, run
from whit.plan import Plan
from whit.steps import Finetune, FoldBatchNorm, Prune, Quantize

SMALL = Settings(train_sheets=256, test_sheets=256, steps=20, batch_size=64, width=0.2)
QUICK = Plan(Prune(amount=0.5, unit="channel"), Finetune(epochs=1), FoldBatchNorm(), Quantize())


def printed(folder: Path, plan: Plan = QUICK) -> str:
    console = Console(file=io.StringIO(), width=80)
    run(folder, settings=SMALL, plan=plan, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_shows_before_after_and_the_limit_and_a_second_one_reuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = printed(tmp_path / "demo")
    for word in ("before", "after", "limit", "mae", "MACs", "ms a sample"):
        assert word in first
    monkeypatch.setattr("whit.demo.run.compress", None)
    second = printed(tmp_path / "demo")
    assert second.startswith("Reusing the result of an earlier run")
    assert first.splitlines()[1:-1] == second.splitlines()[2:-1]


def test_another_plan_is_not_answered_with_the_old_result(tmp_path: Path) -> None:
    printed(tmp_path / "demo")
    other = Plan(Prune(amount=0.25, unit="channel"), FoldBatchNorm())
    assert "Reusing" not in printed(tmp_path / "demo", other)
    assert "Reusing" in printed(tmp_path / "demo", other)


def test_the_demos_own_plan_cuts_rounds_and_lets_the_original_teach() -> None:
    kinds = [type(step) for step in PLAN.steps]
    assert kinds == [Prune, Finetune, FoldBatchNorm, Quantize, Finetune]
    assert all(step.distill is not None for step in PLAN.steps if isinstance(step, Finetune))
