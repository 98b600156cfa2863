"""Plans: what makes a step, an order, a rule; and whom a rule concerns."""

import dataclasses
import re
from dataclasses import replace

import pytest

from whit import (
    L1,
    NM,
    Block,
    Distill,
    Equalize,
    Factorize,
    FeatureHints,
    Finetune,
    FoldBatchNorm,
    FoldParametrizations,
    GeometricMedian,
    Int,
    KeepOutputs,
    Magnitude,
    OptimalBrain,
    Plan,
    PlanError,
    Prune,
    Quantize,
    RemoveDead,
    Rewind,
    Rule,
    Shrink,
    SmoothQuant,
    Taylor,
)
from whit.formats import FP8_E4M3, NVFP4, Codebook
from whit.steps import settings

LAYERS = ["stem", "body.0.conv", "body.1.conv", "head"]


def refused(make, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prune(amount=1), "Prune(amount=1): the share to remove lies in [0, 1); for half of them write 0.5"),
        (lambda: Prune(amount=50), "Prune(amount=50): the share to remove lies in [0, 1)"),
        (lambda: Prune(amount=-0.1), "Prune(amount=-0.1): the share to remove lies in [0, 1)"),
        (lambda: Prune(amount=float("nan")), "Prune(amount=nan): the share to remove lies in [0, 1)"),
        (lambda: Prune(amount=0.5, unit="filter"), "Prune(unit='filter'): choose one of weight, channel"),
        (lambda: Prune(amount=0.5, scope="model"), "Prune(scope='model'): choose one of row, layer, global"),
        (lambda: Prune(amount=0.5, multiple_of=0), "Prune(multiple_of=0): keep a multiple of 1 or more channels"),
        (lambda: Prune(amount=0.5, samples=0), "Prune(samples=0): look at one sample or more"),
        (lambda: Prune(amount=0.5, unit="channel", scope="row"), 'it is for weights; take "layer" or "global"'),
        (lambda: Prune(amount=0.5, unit="channel", compensate=True), "only single weights make up for others so far"),
        (lambda: Prune(amount=0.5, unit="residual", compensate=True), "only single weights make up for others so far"),
        (lambda: Prune(amount=0.5, unit="residual", scope="erk"), "it is for weights"),
        (lambda: Prune(amount=0.5, unit="residual", score=Taylor()), "by what the outputs diverge by without them"),
        (lambda: Prune(amount=0.5, unit="residual", multiple_of=8), "branches go whole"),
        (
            lambda: Prune(
                amount=0.5, unit="residual", rules=(Rule(layers="a", use=Prune(amount=0.1, unit="residual")),)
            ),
            "a rule can only leave branches alone",
        ),
        (lambda: Prune(amount=0.5, macs=0.5), "Prune(macs=0.5, unit='weight'): channels are cut until"),
        (lambda: Prune(amount=0.5, unit="channel", macs=0), "above 0 and at most 1"),
        (lambda: Prune(amount=0.5, latency=0.5), "until a share of the time is left"),
        (lambda: Prune(amount=0.5, unit=NM(n=2, m=4), bytes=0.5), "until a share of the bytes is left"),
        (lambda: Prune(amount=0.5, unit=Block(), scope="row"), 'blocks may span rows; take scope="layer"'),
        (
            lambda: Prune(amount=0.5, unit=NM(n=1, m=4)),
            'that unit leaves out 0.75 of every layer; write amount=0.75, scope="layer"',
        ),
        (lambda: Prune(amount=0.5, score=GeometricMedian()), 'it judges whole channels; take unit="channel", or'),
        (lambda: Magnitude(norm=3), "Magnitude(norm=3): the norm is 1 or 2"),
        (lambda: Quantize(weights=None), "Quantize(weights=None, activations=None) does nothing"),
        (
            lambda: Quantize(activations=Int(bits=8)),
            'activations have one scale a tensor, a float32; write Int(bits=8, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(activations=Int(bits=8, per="group", group_size=4)),
            'activations have one scale a tensor, a float32; write Int(bits=8, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(activations=Int(bits=8, per="tensor", scale="e8m0")),
            'activations have one scale a tensor, a float32; write Int(bits=8, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(activations=Int(bits=1, per="tensor")),
            'activations have at least 2 bits; write Int(bits=2, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(activations=replace(FP8_E4M3, per="tensor")),
            'runtimes round activations to integers only; write Int(bits=8, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(activations=Codebook(k=16)),
            'runtimes round activations to integers only; write Int(bits=8, per="tensor", symmetric=False)',
        ),
        (
            lambda: Quantize(weights=FP8_E4M3, activations=Int(bits=8, per="tensor")),
            "and round other weights to int8 themselves; take weights=Int(bits=8) or activations=None",
        ),
        (
            lambda: Quantize(weights=NVFP4, method=OptimalBrain()),
            'take weights=Int(bits=4, per="group", group_size=16), or method=Nearest(clip="mse") with this format',
        ),
        (
            lambda: Quantize(rules=(Rule(layers="head", use=Quantize(weights=FP8_E4M3, method=OptimalBrain())),)),
            "OptimalBrain rounds to integers with a zero and float32 scales, not to Float(exponent=4, mantissa=3",
        ),
        (
            lambda: Quantize(weights=8),
            "Quantize(weights=8): the format of weights is an Int, Float or Codebook, such as Int(bits=8)",
        ),
        (
            lambda: Plan(Prune(amount=0.5), Quantize(weights=Int(bits=1))),
            "has no zero for the weights that Prune leaves out; take Int(bits=2)",
        ),
        (lambda: Quantize(samples=0), "Quantize(samples=0): observe at least one sample"),
        (lambda: Distill(weight=-0.5), "Distill(weight=-0.5): the teacher's share lies in [0, 1]"),
        (lambda: Distill(weight=1.5), "Distill(weight=1.5): the teacher's share lies in [0, 1]"),
        (lambda: Distill(decoupled=-1.0), "Distill(decoupled=-1.0): it is zero, a positive number or None"),
        (lambda: Distill(weight=0, decoupled=2.0), "Distill(weight=0) learns from the targets alone"),
        (lambda: Distill(once=True, hints=FeatureHints(layers=("a",))), "hints are compared at every step"),
        (lambda: FeatureHints(layers=()), "FeatureHints(layers=()): name at least one module"),
        (lambda: FeatureHints(layers=("a",), strength=0.0), "FeatureHints(strength=0.0): it is a positive number"),
        (lambda: FeatureHints(layers=("a",), teacher_layers=("a", "b")), "1 layers and 2 teacher_layers"),
        (lambda: Finetune(epochs=1, accumulate=0), "Finetune(accumulate=0): a step takes at least one batch"),
        (lambda: Finetune(epochs=1, average=1.0), "Finetune(average=1.0): the decay of a mean lies in [0, 1)"),
        (lambda: Finetune(epochs=1, precision="half"), "precision='half'"),
        (lambda: KeepOutputs(indices=()), "KeepOutputs(indices=()): name one output or more, each once and rising"),
        (
            lambda: KeepOutputs(indices=(3, 1)),
            "KeepOutputs(indices=(3, 1)): name one output or more, each",
        ),
        (lambda: KeepOutputs(indices=(-1, 1)), "each once and rising, from 0 on"),
        (lambda: Plan(FoldBatchNorm(), KeepOutputs(indices=(1,))), "step 2 (KeepOutputs) comes after FoldBatchNorm"),
        (
            lambda: Prune(amount=0.5, outputs=True),
            "Prune(unit='weight', outputs=True): outputs are cut as channels are",
        ),
        (
            lambda: Prune(
                amount=0.5,
                unit="channel",
                rules=(Rule(layers="a", use=Prune(amount=0.1, unit="channel", outputs=True)),),
            ),
            "the rule for 'a' has outputs=True; that is said of the network, by the step itself",
        ),
        (lambda: Shrink(width=0.0), "Shrink(width=0.0): the share that stays lies in (0, 1]"),
        (lambda: Shrink(depth=1.5), "Shrink(depth=1.5): the share that stays lies in (0, 1]"),
        (Shrink, "shrinks nothing; give one of the two a smaller share"),
        (lambda: Shrink(width=0.5, start="zero"), "Shrink(start='zero'): choose one of inherited, fresh"),
        (lambda: Plan(Quantize(), Shrink(width=0.5)), "step 2 (Shrink) comes after Quantize"),
        (
            lambda: Finetune(epochs=1, sharded=True, penalty=L1(strength=0.1)),
            "need whole weights and layers",
        ),
        (lambda: Plan(Quantize(), Finetune(epochs=1, sharded=True)), "trains weights in floating point"),
        (lambda: Plan(Prune(amount=0.5), Finetune(epochs=1, sharded=True)), "trains weights in floating point"),
        (lambda: Finetune(epochs=1, held_out=1.0), "Finetune(held_out=1.0): the share of the samples to judge on lies"),
        (lambda: Finetune(epochs=1, held_out=-0.1), "Finetune(held_out=-0.1): the share of the samples to judge on"),
        (lambda: Finetune(epochs=1, patience=3), "nothing is judged without samples that are not trained on"),
        (lambda: Finetune(epochs=1, judge_every=0.5), "nothing is judged without samples that are not trained on"),
        (lambda: Finetune(epochs=1, held_out=0.1, judge_every=0), "Finetune(judge_every=0): it is a positive number"),
        (lambda: Finetune(epochs=1, held_out=0.1, patience=0), "Finetune(patience=0): wait for at least one"),
        (lambda: Finetune(epochs=1, held_out=0.1, rate=1e-5), "what is judged is the quality alone"),
        (lambda: Finetune(epochs=1, held_out=0.1, penalty=L1(strength=0.1)), "what is judged is the quality alone"),
        (lambda: Distill(temperature=0), "Distill(temperature=0): a temperature is a positive number"),
        (lambda: Distill(temperature=float("inf")), "Distill(temperature=inf): a temperature is a positive number"),
        (lambda: Finetune(epochs=0), "Finetune(epochs=0): it is a positive number"),
        (lambda: Finetune(epochs=float("inf")), "Finetune(epochs=inf): it is a positive number"),
        (lambda: Finetune(epochs=1, learning_rate=-1), "Finetune(learning_rate=-1): it is a positive number"),
        (lambda: Finetune(epochs=1, batch_size=0), "Finetune(batch_size=0): a batch holds at least one sample"),
        (lambda: Finetune(epochs=1, weight_decay=-1), "Finetune(weight_decay=-1): it is zero or a positive number"),
        (lambda: Finetune(epochs=1, optimizer="adam"), "Finetune(optimizer='adam'): choose one of adamw, sgd"),
        (lambda: Finetune(epochs=1, loss="hinge"), "Finetune(loss='hinge'): choose one of cross_entropy"),
        (lambda: Rule(layers="("), "Rule(layers='(') is not a regular expression: "),
        (
            lambda: Rule(layers="a", use=Prune(amount=0.5, rules=(Rule(layers="b"),))),
            "Rule(layers='a'): the settings of a rule cannot have rules of their own",
        ),
        (
            lambda: Prune(amount=0.5, rules=(Rule(layers="a", use=Quantize()),)),
            "the rule for 'a' uses Quantize in a Prune step; give it a Prune or None",
        ),
        (
            lambda: Quantize(rules=(Rule(layers="a", use=Prune(amount=0.5)),)),
            "the rule for 'a' uses Prune in a Quantize step; give it a Quantize or None",
        ),
        (
            lambda: Prune(amount=0.5, rules=(Rule(layers="a", use=Prune(amount=0.1, unit="channel")),)),
            "the rule for 'a' prunes channels by layer, its step weights by layer: write two steps instead",
        ),
    ],
)
def test_a_step_that_cannot_run_is_refused_when_it_is_made(make, message):
    refused(make, message)


@pytest.mark.parametrize("amount", [0, 0.5, 0.999])
def test_an_amount_is_a_share_from_0_up_to_1(amount):
    assert Prune(amount=amount).amount == amount


def test_steps_are_frozen_and_named_arguments_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prune(amount=0.5).amount = 0.7
    with pytest.raises(TypeError):
        Prune(0.5)
    assert replace(Prune(amount=0.5), amount=0.7) == Prune(amount=0.7)


def test_plans_are_values():
    one, other = (Plan(Prune(amount=0.5), Quantize(rules=(Rule(layers="head"),))) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Plan(Prune(amount=0.4), Quantize(rules=(Rule(layers="head"),)))


# The order of steps.


def test_a_plan_has_a_step():
    refused(Plan, "a plan without steps changes nothing; give it at least one step")


@pytest.mark.parametrize("what", ["prune", Int(bits=8), [Quantize()], Prune])
def test_a_plan_is_made_of_steps(what):
    refused(
        lambda: Plan(what),
        "is not a step; steps are KeepOutputs, FoldParametrizations, FoldBatchNorm, Equalize, Prune, Regrow, "
        "RemoveDead, Rewind, Shrink, Factorize, Quantize and Finetune",
    )


@pytest.mark.parametrize(
    "late",
    [
        FoldParametrizations(),
        FoldBatchNorm(),
        Equalize(),
        RemoveDead(),
        Prune(amount=0.5),
        Prune(amount=0.5, unit="channel"),
    ],
)
def test_what_changes_weights_comes_before_they_are_rounded(late):
    name = type(late).__name__
    message = f"step 3 ({name}) comes after Quantize: it would change weights that are already rounded"
    refused(lambda: Plan(Quantize(), Finetune(epochs=1), late), message)


def test_every_other_order_is_a_plan():
    prune, fold, tune = Prune(amount=0.5), FoldBatchNorm(), Finetune(epochs=1)
    steps = (tune, fold, prune, tune, prune, tune, Quantize(), tune, Quantize(weights=Int(bits=4)), tune)
    assert Plan(*steps).steps == steps


# Rules.


def test_without_rules_every_layer_has_the_step_itself():
    step = Prune(amount=0.5)
    assert settings(step, LAYERS) == dict.fromkeys(LAYERS, step)


def test_the_first_rule_that_matches_the_whole_name_wins():
    few, fewer = Quantize(weights=Int(bits=4)), Quantize(weights=Int(bits=2))
    rules = (
        Rule(layers=r"body\.0", use=None),  # part of a name: no match
        Rule(layers=r"body\.1.*", use=few),
        Rule(layers=r"body\..*", use=fewer),
        Rule(layers=r"stem|body\.1\.conv", use=None),
    )
    step = Quantize(rules=rules[1:])
    assert settings(step, LAYERS) == {"body.0.conv": fewer, "body.1.conv": few, "head": Quantize()}
    refused(lambda: settings(Quantize(rules=rules), LAYERS), r"the rule for body\.0 matches no layer")


def test_a_rule_without_settings_leaves_layers_alone():
    chosen = settings(Prune(amount=0.5, rules=(Rule(layers="head"),)), LAYERS)
    assert list(chosen) == LAYERS[:-1]


def test_settings_carry_no_rules():
    chosen = settings(Prune(amount=0.5, rules=(Rule(layers="head"),)), LAYERS)
    assert all(use.rules == () for use in chosen.values())


def test_rules_that_match_nothing_are_all_listed_with_the_layers():
    step = Prune(amount=0.5, rules=(Rule(layers="tail"), Rule(layers="head"), Rule(layers="conv")))
    message = "Prune: the rule for conv, tail matches no layer; the layers are stem, body.0.conv, body.1.conv, head"
    refused(lambda: settings(step, LAYERS), message)


def test_a_rule_behind_another_that_matches_the_same_layers_is_not_an_error():
    step = Prune(amount=0.5, rules=(Rule(layers=".*", use=Prune(amount=0.1)), Rule(layers="head")))
    assert settings(step, LAYERS) == dict.fromkeys(LAYERS, Prune(amount=0.1))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "give just one of energy, parameters and macs"),
        ({"energy": 0.9, "macs": 0.5}, r"Factorize\(energy=0.9, macs=0.5\): give just one"),
        ({"energy": 1.0}, "lies between 0 and 1"),
        ({"parameters": 0.0}, "lies between 0 and 1"),
        ({"macs": float("nan")}, "lies between 0 and 1"),
        ({"energy": 0.9, "kernels": "rows"}, "choose one of channel, spatial"),
        ({"energy": 0.9, "by": "guess"}, "choose one of outputs, weights"),
        ({"energy": 0.9, "multiple_of": 0}, "multiple of 1 or more"),
        ({"energy": 0.9, "samples": 0}, "one sample or more"),
        ({"energy": 0.9, "rules": (Rule(layers="a", use=Prune(amount=0.5)),)}, "uses Prune in a Factorize step"),
        ({"energy": 0.9, "rules": (Rule(layers="a", use=Factorize(macs=0.5)),)}, "a network has one budget"),
        ({"macs": 0.9, "rules": (Rule(layers="a", use=Factorize(energy=0.5)),)}, "a network has one budget"),
    ],
)
def test_factorize_settings_that_mean_nothing_are_refused(settings, problem):
    with pytest.raises(PlanError, match=problem):
        Factorize(**settings)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([Quantize(), Factorize(energy=0.9)], r"step 2 \(Factorize\) comes after Quantize"),
        ([Prune(amount=0.5), Factorize(energy=0.9)], "comes after a Prune of single weights"),
        ([Equalize(by=SmoothQuant(), in_front="a"), Factorize(energy=0.9)], "Put it before Equalize"),
        ([Factorize(energy=0.9), Rewind()], "has no values for factors"),
    ],
)
def test_factorize_has_its_place(steps, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(*steps)
