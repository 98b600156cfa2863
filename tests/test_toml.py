"""Plans to TOML and back."""

import re
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whit import (
    AWQ,
    L1,
    LAMP,
    AttentionTransfer,
    Block,
    Codebook,
    CrossLayer,
    Distill,
    Entropy,
    Equalize,
    Factorize,
    Finetune,
    Float,
    FoldBatchNorm,
    FoldParametrizations,
    GrowingPenalty,
    HalfQuadratic,
    Hessian,
    Int,
    KeepOutputs,
    LearnedRounding,
    Magnitude,
    MeanSquaredError,
    MinMax,
    Nearest,
    Percentile,
    Plan,
    PlanError,
    Prune,
    Quantize,
    Random,
    RemoveDead,
    Rewind,
    Rule,
    Shrink,
    SmoothQuant,
    load_plan,
    save_plan,
)
from whit.formats import BF16, FP16, NVFP4
from whit.scores import Score
from whit.toml import dumps, from_table, loads, to_table

# Every kind with every field, at random.

positive = st.floats(0, 1e9, exclude_min=True)
several = st.integers(1, 10**9)


@st.composite
def formats(draw, per=("tensor", "channel", "group")):
    chosen = draw(st.sampled_from(per))
    return Int(
        bits=draw(st.integers(3, 16)),
        symmetric=draw(st.booleans()),
        per=chosen,
        group_size=draw(several) if chosen == "group" else None,
        reduce_range=draw(st.booleans()),
    )


@st.composite
def weight_formats(draw):
    layout = draw(st.sampled_from(["tensor", "channel", "group"]))
    layout = {"per": layout, "group_size": draw(several) if layout == "group" else None}
    scale = draw(st.sampled_from(["float32", "e8m0", "e4m3"]))
    number = Float(exponent=draw(st.integers(2, 7)), mantissa=draw(st.integers(0, 8)), scale=scale, **layout)
    few = Int(bits=draw(st.integers(1, 16)), scale=scale, **layout)
    book = Codebook(k=draw(st.integers(2, 256)), **layout)
    return draw(st.sampled_from([number, few, book, BF16, FP16, draw(formats())]))


def rules(use):
    """Up to three rules whose patterns hold any text there is."""
    layers = st.text().map(re.escape) | st.sampled_from([".*", r"a\.b", "[é]+", '"', "\\\\", "\x7f\x00\n"])
    return st.lists(st.builds(Rule, layers=layers, use=st.none() | use), max_size=3).map(tuple)


@st.composite
def prunes(draw, unit=None, scope=None, nested=True):
    unit = unit or draw(st.sampled_from(["weight", "channel", Block(rows=2, columns=3)]))
    scope = scope or draw(st.sampled_from(["layer", "global"] if unit == "channel" else ["layer", "global", "erk"]))
    score = draw(st.sampled_from([Magnitude(norm=1), Magnitude(), Hessian(damping=0.5), LAMP(), Random(seed=3)]))
    shares = st.none() | st.floats(0, 1, exclude_min=True)
    return Prune(
        amount=draw(st.floats(0, 1, exclude_max=True)),
        unit=unit,
        score=score,
        scope=scope,
        macs=draw(shares) if nested and unit == "channel" else None,
        latency=draw(shares) if nested and unit == "channel" else None,
        bytes=draw(shares) if nested else None,
        multiple_of=draw(several),
        rules=draw(rules(prunes(unit, scope, nested=False))) if nested else (),
    )


def fitting(target):
    """Methods that only some formats go with."""
    fits = isinstance(target, Int) and target.has_zero and target.scale == "float32"
    return [HalfQuadratic(norm=0.5, iterations=3), LearnedRounding(start=Nearest(), iterations=5)] if fits else []


@st.composite
def quantizes(draw, nested=True):
    weights, activations = draw(
        st.tuples(st.none() | weight_formats(), st.none() | formats(per=["tensor"])).filter(
            lambda pair: pair != (None, None)
        )
    )
    if activations is not None and not isinstance(weights, Int):
        weights = None
    return Quantize(
        weights=weights,
        activations=activations,
        method=draw(st.sampled_from([Nearest(), Nearest(clip="mse"), *fitting(weights)])),
        range=draw(
            st.sampled_from([MinMax(), MeanSquaredError()])
            | st.builds(Percentile, percent=st.floats(50, 100, exclude_min=True))
            | st.builds(Entropy, steps=several)
        ),
        samples=draw(several),
        correct_biases=draw(st.booleans()),
        rules=draw(rules(quantizes(nested=False))) if nested else (),
    )


by_inputs = st.builds(SmoothQuant, alpha=st.floats(0, 1)) | st.builds(
    AWQ, weights=weight_formats(), method=st.just(Nearest(clip="mse")), steps=several
)
equalizes = st.builds(Equalize, by=st.just(CrossLayer()) | by_inputs, samples=several) | st.builds(
    Equalize, by=by_inputs, in_front=st.sampled_from([".*", r"a\.(b|c)"])
)
tunes = st.builds(
    Finetune,
    epochs=positive | several,
    learning_rate=positive,
    batch_size=several,
    optimizer=st.sampled_from(["adamw", "sgd"]),
    weight_decay=st.floats(0, 1),
    loss=st.sampled_from([None, "cross_entropy", "mean_squared_error", "mean_absolute_error"]),
    distill=st.none()
    | st.builds(
        Distill,
        weight=st.floats(0, 1, exclude_min=True),
        temperature=positive,
        decoupled=st.none() | positive,
        hints=st.none() | st.builds(AttentionTransfer, layers=st.just(("layer1", "layer2")), strength=positive),
    ),
    accumulate=st.integers(1, 8),
    average=st.sampled_from([0.0, 0.999]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(),
)
penalties = st.builds(L1, strength=positive) | st.builds(GrowingPenalty, strength=positive, amount=st.just(0.5))
driven = st.builds(Finetune, epochs=positive, penalty=penalties)
early = st.lists(
    st.sampled_from([FoldBatchNorm(), RemoveDead(), Rewind(), Shrink(width=0.25, start="fresh")])
    | equalizes
    | prunes()
    | tunes
    | driven,
    max_size=3,
)
late = st.lists(quantizes() | tunes, min_size=1, max_size=3)


first = st.sampled_from([(), (KeepOutputs(indices=(0,)),), (KeepOutputs(indices=(3, 8)),)])


def whole(first, before, after):
    """A plan, unless it rounds weights that Prune left out to a format without a zero."""
    try:
        return Plan(*first, *before, *after)
    except PlanError as error:
        assume("has no zero" not in str(error))
        raise


plans = st.builds(whole, first, early, late)


@settings(deadline=None)
@given(plans)
def test_loads_is_the_inverse_of_dumps(plan):
    text = dumps(plan)
    assert loads(text) == plan
    assert dumps(loads(text)) == text


KINDS = (
    "keep_outputs",
    "fold_batch_norm",
    "equalize",
    "factorize",
    "prune",
    "shrink",
    "remove_dead",
    "rewind",
    "quantize",
    "finetune",
)


@settings(deadline=None)
@given(plans)
def test_a_table_names_its_kind_and_what_is_not_default(plan):
    for step in plan.steps:
        table = to_table(step)
        assert from_table(table, type(step)) == step
        assert table.pop("kind") in KINDS
        assert all(getattr(step, name) != getattr(type(step), name, None) for name in table)


def test_factors_go_there_and_back():
    plan = Plan(
        FoldParametrizations(),
        Factorize(macs=0.7, kernels="spatial", by="weights", rules=(Rule(layers="head"),)),
        Factorize(energy=0.9, rules=(Rule(layers="head", use=Factorize(energy=0.5, multiple_of=8)),)),
    )
    assert "parameters" not in dumps(plan)
    assert loads(dumps(plan)) == plan


def test_a_plan_is_pinned_as_people_read_it():
    plan = Plan(
        FoldBatchNorm(),
        Prune(amount=0.5, unit="channel", multiple_of=8, rules=(Rule(layers=r"layer1\..*"),)),
        Finetune(epochs=2, learning_rate=1e-5, distill=Distill(temperature=2.0)),
        Quantize(weights=Int(bits=4, per="group", group_size=32), rules=(Rule(layers="head", use=Quantize()),)),
    )
    assert dumps(plan) == (
        '[[step]]\nkind = "fold_batch_norm"\n\n'
        '[[step]]\nkind = "prune"\namount = 0.5\nunit = "channel"\nmultiple_of = 8\n'
        'rules = [{kind = "rule", layers = "layer1\\\\..*"}]\n\n'
        '[[step]]\nkind = "finetune"\nepochs = 2\nlearning_rate = 1e-05\n'
        'distill = {kind = "distill", temperature = 2.0}\n\n'
        '[[step]]\nkind = "quantize"\nweights = {kind = "int", bits = 4, per = "group", group_size = 32}\n'
        'rules = [{kind = "rule", layers = "head", use = {kind = "quantize"}}]\n'
    )


def test_formats_are_pinned_as_people_read_them():
    plan = Plan(Quantize(weights=NVFP4), Quantize(weights=Codebook(k=16), range=MeanSquaredError()))
    assert dumps(plan) == (
        '[[step]]\nkind = "quantize"\n'
        'weights = {kind = "float", exponent = 2, mantissa = 1, per = "group", group_size = 16, scale = "e4m3"}\n\n'
        '[[step]]\nkind = "quantize"\nweights = {kind = "codebook", k = 16}\n'
        'range = {kind = "mean_squared_error"}\n'
    )


def test_none_is_written_where_the_default_is_another():
    plan = Plan(Quantize(weights=None, activations=Int(bits=8, per="tensor")))
    assert 'weights = "none"' in dumps(plan)
    assert loads(dumps(plan)) == plan


def test_numbers_of_numpy_are_written_as_numbers():
    plan = Plan(Prune(amount=np.float64(0.25)))
    assert "amount = 0.25\n" in dumps(plan)
    assert loads(dumps(plan)) == plan


def test_a_plan_file_is_read_as_it_was_saved(tmp_path):
    plan = Plan(Prune(amount=0.5, rules=(Rule(layers="größe"),)))
    save_plan(plan, tmp_path / "plan.toml")
    assert load_plan(tmp_path / "plan.toml") == plan


# Bad TOML.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the plan has no [[step]] table; write at least one step"),
        ("step = []", "the plan has no [[step]] table"),
        ("step = 3", "the plan has no [[step]] table"),
        ("[[step]", "the plan is not TOML: "),
        ("a = " + "9" * 5000, "the plan is not TOML: "),
        ("a = " + "[" * 5000, "the plan is not TOML: "),
        ("[budget]\nbytes = 3\n[[step]]", "the plan has budget beside its [[step]] tables; a plan holds nothing else"),
        ("[[step]]", "the plan, step 1: {} is not a table with a kind"),
        ("step = [1]", "the plan, step 1: 1 is not a table with a kind"),
        ("[[step]]\nkind = 1", "is not a table with a kind"),
        ('[[step]]\nkind = "trim"', "step 1: there is no kind 'trim'; whit knows "),
        (
            '[[step]]\nkind = "int"\nbits = 8',
            "kind 'int' does not fit here; choose keep_outputs, fold_parametrizations, fold_batch_norm, equalize",
        ),
        ('[[step]]\nkind = "prune"', "step 1: prune needs amount"),
        (
            '[[step]]\nkind = "prune"\namount = 0.5\nshare = 1',
            "prune has no share; it has amount, bytes, compensate, latency, macs, multiple_of, outputs, rules",
        ),
        ('[[step]]\nkind = "prune"\namount = 2', "step 1: Prune(amount=2): the share to remove lies in [0, 1)"),
        ('[[step]]\nkind = "prune"\namount = "half"', "prune.amount = 'half': expected float, not str"),
        ('[[step]]\nkind = "prune"\namount = true', "prune.amount = True: expected float, not bool"),
        ('[[step]]\nkind = "prune"\namount = "none"', "prune.amount = 'none': expected float, not str"),
        ('[[step]]\nkind = "prune"\namount = 0.5\nunit = "row"', "prune.unit = 'row': choose one of weight, channel"),
        ('[[step]]\nkind = "prune"\namount = 0.5\nrules = 1', "prune.rules = 1: expected a list"),
        ('[[step]]\nkind = "prune"\namount = 0.5\nrules = [1]', "1 is not a table with a kind"),
        (
            '[[step]]\nkind = "prune"\namount = 0.5\nmultiple_of = 2.0',
            "prune.multiple_of = 2.0: expected int, not float",
        ),
        ('[[step]]\nkind = "prune"\namount = 0.5\nscore = "l1"', "'l1' is not a table with a kind"),
        (
            '[[step]]\nkind = "prune"\namount = 0.5\nscore = {kind = "magnitude", norm = true}',
            "magnitude.norm = True: choose one of 1, 2",
        ),
        (
            '[[step]]\nkind = "prune"\namount = 0.5\nscore = {kind = "min_max"}',
            "kind 'min_max' does not fit here; choose batch_norm_scale, fisher",
        ),
        ('[[step]]\nkind = "quantize"\nweights = {kind = "int"}', "int needs bits"),
        (
            '[[step]]\nkind = "quantize"\nweights = {kind = "min_max"}',
            "kind 'min_max' does not fit here; choose codebook, float, int",
        ),
        (
            '[[step]]\nkind = "quantize"\nactivations = {kind = "float", exponent = 4, mantissa = 3}',
            "kind 'float' does not fit here; choose int",
        ),
        ('[[step]]\nkind = "quantize"\nweights = 8', "step 1: 8 is not a table with a kind, such as"),
        (
            '[[step]]\nkind = "quantize"\nweights = {kind = "int", bits = 17}',
            "Int(bits=17): integers have 1 to 16 bits",
        ),
        (
            '[[step]]\nkind = "prune"\namount = 0.5\nrules = [{kind = "rule", layers = "a", use = {kind = "int"}}]',
            "kind 'int' does not fit here; choose factorize, prune, quantize",
        ),
        (
            '[[step]]\nkind = "quantize"\n\n[[step]]\nkind = "prune"\namount = 0.5',
            "step 2 (Prune) comes after Quantize",
        ),
        ('[[step]]\nkind = "finetune"\nepochs = inf', "Finetune(epochs=inf): it is a positive number"),
    ],
)
def test_what_is_wrong_in_a_plan_is_said_with_its_place(text, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        loads(text)


def test_the_first_mistake_in_the_order_of_the_file_is_the_one_told():
    with pytest.raises(PlanError, match=r"prune\.unit"):
        loads('[[step]]\nkind = "prune"\nunit = "row"\namount = "half"\nscope = "all"')


def test_files_that_hold_no_plan_are_named(tmp_path):
    for path, message in ((tmp_path / "absent", "there is no plan file"), (tmp_path, "cannot read the plan file")):
        with pytest.raises(PlanError, match=f"{message} {re.escape(str(path))}"):
            load_plan(path)
    binary = tmp_path / "plan.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="is not a text file, so it holds no plan"):
        load_plan(binary)
    binary.write_text("[[step]]")
    with pytest.raises(PlanError, match=re.escape(f"{binary}, step 1: ")):
        load_plan(binary)


# Kinds of others.


@dataclass(frozen=True, kw_only=True)
class Custom(Score):
    """A score of somebody else's."""

    sharpness: float = 1.0
    powers: tuple[int, ...] = field(default_factory=tuple)

    def weights(self, weights):
        return weights * self.sharpness

    def units(self, slices):
        return slices[0].sum(axis=1)


@dataclass(frozen=True)
class Unrelated:
    """A dataclass that is no part of a plan."""


class Plain(Score):
    """A score that is not a dataclass."""


KIND = f"{__name__}:Custom"


@pytest.mark.parametrize("score", [Custom(), Custom(sharpness=2.5), Custom(powers=(1, 2))])
def test_a_kind_of_somebody_else_is_written_with_its_module(score):
    plan = Plan(Prune(amount=0.5, score=score))
    assert f'score = {{kind = "{KIND}"' in dumps(plan)
    assert loads(dumps(plan)) == plan


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (f"{__name__}:Absent", "names no dataclass of an imported module; import"),
        (f"{__name__}:Plain", "names no dataclass of an imported module; import"),
        (f"{__name__}:Unrelated", "does not fit here; choose batch_norm_scale, fisher"),
        ("antigravity:Custom", "names no dataclass of an imported module; import antigravity first"),
        (f"{__name__}:Custom.__class__", "names no dataclass"),
        (":Custom", "names no dataclass"),
    ],
)
def test_a_kind_that_is_not_there_is_refused(kind, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        loads(f'[[step]]\nkind = "prune"\namount = 0.5\nscore = {{kind = "{kind}"}}')


def test_nothing_is_imported_for_a_file():
    class Lazy(type(sys)):
        def __getattr__(self, name):
            pytest.fail(f"{name} was looked up in a way that can import")

    sys.modules["whit_lazy"] = Lazy("whit_lazy")
    try:
        with pytest.raises(PlanError, match="names no dataclass of an imported module"):
            loads('[[step]]\nkind = "prune"\namount = 0.5\nscore = {kind = "whit_lazy:Custom"}')
    finally:
        del sys.modules["whit_lazy"]
    assert "antigravity" not in sys.modules
