"""Ledgers of every kind of decision, to a file and back."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit.errors import FileError, OutputError
from whit.formats import BF16, FP16, Codebook, Float, Int
from whit.ledger import (
    Assigned,
    Axis,
    Factored,
    Folded,
    Kept,
    Ledger,
    LeftOut,
    Masked,
    Rounded,
    RoundedActivation,
    RoundedBias,
    Scaled,
    Span,
    matrix,
)
from whit.quantizers import Nearest
from whit.store import encode, read, write_whole

NAMES = st.text(min_size=1, max_size=8)
SCALES = st.floats(2.0**-126, 2.0**120, width=32)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
VALUES = hnp.arrays(st.sampled_from(["bool", "int8", "int16", "int64", "float16", "float32", "float64"]), SHAPES)
INDICES = st.sets(st.integers(0, 2**40), max_size=8).map(lambda places: np.array(sorted(places), np.int64))
on_disk = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def targets(draw, per=("tensor", "channel", "group")):
    """Any format of integers."""
    chosen = draw(st.sampled_from(per))
    return Int(
        bits=draw(st.integers(3, 16)),
        symmetric=draw(st.booleans()),
        per=chosen,
        group_size=draw(st.integers(1, 6)) if chosen == "group" else None,
        reduce_range=draw(st.booleans()),
    )


@st.composite
def others(draw):
    """Any other format: floats, codebooks, and whatever has scales in fewer bits."""
    chosen = draw(st.sampled_from(["tensor", "channel", "group"]))
    layout = {"per": chosen, "group_size": draw(st.integers(1, 6)) if chosen == "group" else None}
    scale = draw(st.sampled_from(["float32", "e8m0", "e4m3"]))
    kinds = [
        Float(exponent=draw(st.integers(2, 7)), mantissa=draw(st.integers(0, 8)), scale=scale, **layout),
        Int(bits=draw(st.sampled_from([1, 2, 8])), scale=scale, **layout),
        Codebook(k=draw(st.integers(2, 256)), **layout),
        draw(st.sampled_from([BF16, FP16])),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def rounded(draw, parameter, shape):
    """Codes, scales and zero points that fit a format and a shape of at least one axis."""
    axis = draw(st.integers(0, len(shape) - 1))
    if draw(st.booleans()):
        target = draw(others())
        weights = draw(hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32)))
        return Rounded.of(parameter, target, shape, Nearest().quantize(matrix(weights, axis), target), axis)
    target = draw(targets())
    rows = shape[axis]
    columns = int(np.prod(shape)) // rows
    layout = (1 if target.per == "tensor" else rows, -(-columns // target.block(columns)))
    codes = st.integers(target.low, target.high)
    return Rounded(
        parameter=parameter,
        target=target,
        shape=shape,
        axis=axis,
        codes=draw(hnp.arrays(np.int32, (rows, columns), elements=codes)),
        scale=draw(hnp.arrays(np.float32, layout, elements=SCALES)),
        zero_point=draw(hnp.arrays(np.int32, layout, elements=codes)),
    )


@st.composite
def ledgers(draw):
    """Valid ledgers: structure in any order, then at most one decision of a kind on each tensor."""
    axes = st.dictionaries(st.builds(Axis, NAMES, st.integers(0, 5)), INDICES, max_size=3)
    counts = st.integers(1, 2**20)
    structure = st.builds(Folded, batch_norm=NAMES, into=NAMES) | st.builds(
        Kept,
        group=NAMES,
        axes=axes,
        groups=st.dictionaries(NAMES, counts, max_size=2),
        sizes=st.dictionaries(NAMES, st.dictionaries(counts, counts, max_size=2), max_size=2),
    )
    spans = st.lists(st.builds(Span, NAMES, st.integers(0, 5), st.integers(0, 9), st.integers(1, 9)), max_size=3).map(
        tuple
    )
    quarters = hnp.arrays(np.int32, st.integers(0, 9), elements=st.integers(-128, 128))
    behind = st.dictionaries(NAMES, st.integers(0, 3), max_size=3)
    structure |= st.builds(Scaled, group=NAMES, quarters=quarters, made=spans, read=spans, inputs=behind)
    modules = st.lists(st.sampled_from(["gone", "gone.too"]), max_size=2).map(tuple)
    structure |= st.builds(LeftOut, branch=NAMES, identity=modules, zeros=modules)
    one, two = (st.tuples(*[st.integers(1, 2**20)] * count) for count in (1, 2))
    layers = NAMES.map("factored.{}".format)
    structure |= st.builds(Factored, layer=layers, form=st.sampled_from(["matrix", "spatial"]), ranks=one)
    structure |= st.builds(Factored, layer=layers, form=st.just("channel"), ranks=two)

    def once(decision):
        """What can only happen once."""
        about = (getattr(decision, name, None) for name in ("batch_norm", "layer"))
        return next((name for name in about if name is not None), id(decision))

    name_once = {"unique_by": once}
    decisions = draw(st.lists(structure, max_size=3, **name_once))
    for name in draw(st.sets(NAMES, max_size=4)):
        shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
        if draw(st.booleans()):
            decisions.append(Masked(parameter=name, mask=draw(hnp.arrays(np.bool_, shape))))
        if draw(st.booleans()):
            decisions.append(draw(rounded(name, shape)))
    for name in draw(st.sets(NAMES.map("assigned.{}".format), max_size=3)):
        decisions.append(Assigned(parameter=name, values=draw(VALUES)))
    for name in draw(st.sets(NAMES, max_size=3)):
        target = draw(targets(per=["tensor"]))
        scale = np.asarray(draw(SCALES), np.float32)
        zero_point = np.asarray(draw(st.integers(target.low, target.high)), np.int32)
        decisions.append(RoundedActivation(tensor=name, target=target, scale=scale, zero_point=zero_point))
    activations = [decision for decision in decisions if isinstance(decision, RoundedActivation)]
    for decision in [one for one in decisions if isinstance(one, Rounded) and one.target.per != "group"]:
        if activations and draw(st.booleans()):
            bias = draw(hnp.arrays(np.float32, decision.codes.shape[:1], elements=st.floats(-1e6, 1e6, width=32)))
            name = f"{decision.parameter}.bias"
            decisions.append(RoundedBias.of(name, bias, decision, draw(st.sampled_from(activations))))
    return Ledger().record(*decisions)


def assert_equal(found, expected):
    """Equal in type, and in every field down to the bits of arrays."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, Ledger):
        assert len(list(found)) == len(list(expected))
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif is_dataclass(expected):
        for field in fields(expected):
            assert_equal(getattr(found, field.name), getattr(expected, field.name))
    else:
        assert found == expected


@on_disk
@given(ledgers())
def test_a_ledger_is_read_as_it_was_written(tmp_path, ledger):
    path = tmp_path / "model.whit"
    path.write_bytes(encode(ledger, None, {"of": "a test"}))
    stored = read(path)
    assert stored.about == {"of": "a test"}
    assert_equal(stored.ledger(), ledger)
    assert_equal(stored.ledger(), ledger)  # as often as one likes


@settings(deadline=None)
@given(ledgers())
def test_a_ledger_gives_the_same_bytes_each_time(ledger):
    assert encode(ledger, None, {}) == encode(ledger, None, {})


def sparse(shape=(32, 16, 3, 3)):
    """A weight of which two thirds are masked, rounded to 4 bits."""
    rng = np.random.default_rng(0)
    mask = rng.random(shape) > 0.66
    weights = np.where(mask, rng.normal(size=shape), 0).astype(np.float32)
    target = Int(bits=4)
    return mask, Rounded.of("w", target, shape, Nearest().quantize(matrix(weights), target))


def test_a_mask_costs_what_codes_do_not_tell(tmp_path):
    mask, rounded = sparse()
    told = rounded.values() != 0
    alone = len(encode(Ledger().record(rounded), None, {}))
    path = tmp_path / "model.whit"
    for chosen, most in ((told, 60), (mask, 60 + mask.size * 0.1), (np.ones_like(mask), 80)):
        ledger = Ledger().record(Masked(parameter="w", mask=chosen), rounded)
        path.write_bytes(encode(ledger, None, {}))
        assert path.stat().st_size < alone + most
        assert_equal(read(path).ledger(), ledger)


def test_zero_points_that_are_all_zero_cost_nothing():
    _, rounded = sparse()
    offset = replace(rounded, zero_point=rounded.zero_point + 1)
    plain, more = (len(encode(Ledger().record(one), None, {})) for one in (rounded, offset))
    assert plain < more


def test_scales_of_8_significant_bits_cost_little_more_than_a_byte():
    rng = np.random.default_rng(0)
    decisions = []
    for place in range(20):
        shape = (64, 9)
        target = Int(bits=4)
        codes = Nearest().quantize(rng.normal(0, 0.05, shape).astype(np.float32), target)
        short = ((codes.scale.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
        decisions.append(Rounded.of(f"layers.{place}.weight", target, shape, codes._replace(scale=short)))
    exact = [replace(one, scale=one.scale + np.float32(1e-7)) for one in decisions]
    short, full = (len(encode(Ledger().record(*some), None, {})) for some in (decisions, exact))
    assert full - short > 1280 * 15 / 8


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(OutputError, match="profile='huge': there is no such profile; choose small or fast"):
        encode(Ledger(), None, {}, profile="huge")


def test_a_file_without_a_network_says_what_it_is_for(tmp_path):
    path = tmp_path / "weights.whit"
    path.write_bytes(encode(Ledger(), None, {}))
    assert list(read(path).ledger()) == []
    with pytest.raises(FileError, match="holds no graph, only decisions on parameters"):
        read(path).onnx()


def test_writing_replaces_the_file_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "model.whit"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.whit"]
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_named_and_the_old_file_stays(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*absent"):
        write_whole(tmp_path / "absent" / "model.whit", b"new")
    folder = tmp_path / "model.whit"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*model\.whit"):
        write_whole(folder, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.whit"]
