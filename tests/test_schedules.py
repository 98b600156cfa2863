"""Schedules are steps of a plan."""

import pytest

from whit import NM, Finetune, Plan, PlanError, Prune, Quantize, Regrow, Rewind, Rule, load_plan, save_plan, schedules

TRAIN = Finetune(epochs=4)


def amounts(steps):
    return [step.amount for step in steps if isinstance(step, Prune)]


def test_gradual_pruning_follows_the_cubic_of_zhu_and_gupta():
    steps = schedules.gradual(Prune(amount=0.9), TRAIN, rounds=4)
    # s_f + (s_i - s_f) (1 - t / n)^3 with s_i = 0.
    assert amounts(steps) == pytest.approx([0.9 - 0.9 * (1 - t / 4) ** 3 for t in (1, 2, 3, 4)])
    assert sum(step.epochs for step in steps if isinstance(step, Finetune)) == 4


def test_channels_are_counted_by_what_is_left_of_them():
    steps = schedules.gradual(Prune(amount=0.5, unit="channel"), TRAIN, rounds=3)
    left = 1.0
    for amount in amounts(steps):
        left *= 1 - amount
    assert left == pytest.approx(0.5)


def test_rules_follow_in_proportion():
    prune = Prune(amount=0.8, rules=(Rule(layers="a", use=Prune(amount=0.4)), Rule(layers="b")))
    first = schedules.gradual(prune, TRAIN, rounds=2)[0]
    assert first.amount == pytest.approx(0.7)
    assert first.rules[0].use.amount == pytest.approx(0.35)
    assert first.rules[1].use is None


def test_rewinding_takes_the_same_share_of_what_is_left_each_round():
    steps = schedules.rewinding(Prune(amount=0.875), TRAIN, rounds=3)
    assert amounts(steps) == pytest.approx([0.5, 0.75, 0.875])
    assert [type(step) for step in steps] == [Prune, Rewind, Finetune] * 3


def test_alternating_and_regrowing_end_pruned_as_asked():
    for make in (schedules.alternating, schedules.regrowing):
        steps = make(Prune(amount=0.8), TRAIN, rounds=3)
        gone = 0.0
        for step in steps:
            if isinstance(step, Prune):
                gone = max(gone, step.amount)
            elif isinstance(step, Regrow):
                gone = max(0.0, gone - step.amount)
        assert gone == pytest.approx(0.8)
        assert sum(step.epochs for step in steps if isinstance(step, Finetune)) == pytest.approx(4)


@pytest.mark.parametrize("make", [schedules.gradual, schedules.rewinding, schedules.alternating, schedules.regrowing])
def test_a_schedule_is_data(make, tmp_path):
    plan = Plan(*make(Prune(amount=0.75), TRAIN, rounds=2), Quantize())
    save_plan(plan, tmp_path / "plan.toml")
    assert load_plan(tmp_path / "plan.toml") == plan
    assert amounts(make(Prune(amount=0.75), TRAIN, rounds=1)) == [0.75]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.gradual(Prune(amount=0.5), TRAIN, rounds=0), "a schedule of 0 rounds does nothing"),
        (lambda: schedules.gradual(Prune(amount=0.5, unit=NM(n=2, m=4)), TRAIN, rounds=2), "cannot prune unit=NM"),
        (lambda: schedules.regrowing(Prune(amount=0.5, unit="channel"), TRAIN, rounds=2), "take unit="),
        (lambda: schedules.regrowing(Prune(amount=0.5, scope="global"), TRAIN, rounds=2), 'take scope="layer"'),
        (
            lambda: schedules.gradual(Prune(amount=0.5, unit="channel", macs=0.5), TRAIN, rounds=2),
            "cannot come near macs=0.5 by shares of an amount",
        ),
        (lambda: Plan(Regrow(amount=0.5)), r"step 1 \(Regrow\) gives back what Prune masked, and no weight was"),
        (lambda: Plan(Prune(amount=0.5), Quantize(), Rewind()), r"step 3 \(Rewind\) comes after Quantize"),
        (lambda: Regrow(amount=2), r"Regrow\(amount=2\): the share to give back lies in \[0, 1\]"),
    ],
)
def test_schedules_that_cannot_run_are_refused(make, message):
    with pytest.raises(PlanError, match=message):
        make()
