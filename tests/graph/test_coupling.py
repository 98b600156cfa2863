"""Which channels go together, on networks drawn by hand."""

import numpy as np
import pytest

from whit.graph.coupling import couple

OUTPUT = "its channels are the output of the network"


def coupled(sketch, *outputs):
    """Groups as ``{name: {(parameter, axis): indices of each unit}}`` and frozen layers, checked for soundness."""
    graph = sketch.graph(*outputs)
    found = couple(graph)
    taken = set()
    for group in found.groups:
        for (parameter, axis), indices in group.cuts.items():
            assert len(indices) == group.size
            assert indices.min() >= 0
            assert indices.max() < graph.shape(parameter)[axis]
            places = {(parameter, axis, index) for index in indices.reshape(-1).tolist()}
            assert len(places) == indices.size, "an index is in two units"
            assert not places & taken, "an index is in two groups"
            taken |= places
    cuts = {group.name: {tuple(key): indices.tolist() for key, indices in group.cuts.items()} for group in found.groups}
    return cuts, dict(found.frozen)


def each(count, start=0):
    """One index a unit."""
    return [[index] for index in range(start, start + count)]


def blocks(count, size):
    """``size`` neighbouring indices a unit."""
    return np.arange(count * size).reshape(count, size).tolist()


def test_a_chain_couples_what_a_layer_makes_with_what_the_next_reads(sketch):
    h = sketch.apply("relu", sketch.norm(sketch.conv("x", "a", 4, bias=True), "n"))
    h = sketch.apply("pool", sketch.conv(h, "b", 6))
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    norm = {(f"n.{part}", 0): each(4) for part in ("weight", "bias", "running_mean", "running_var")}
    assert cuts == {
        "a": {("a.weight", 0): each(4), ("a.bias", 0): each(4), **norm, ("b.weight", 1): each(4)},
        "b": {("b.weight", 0): each(6), ("head.weight", 1): each(6)},
    }
    assert frozen == {"head": OUTPUT}


def test_a_residual_sum_couples_both_branches(sketch):
    a = sketch.conv("x", "a", 4)
    total = sketch.apply("add", a, sketch.conv(sketch.apply("relu", a), "b", 4))
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(total), "head", 2))
    assert list(cuts) == ["a"]
    assert set(cuts["a"]) == {("a.weight", 0), ("b.weight", 0), ("b.weight", 1), ("head.weight", 1)}
    assert all(indices == each(4) for indices in cuts["a"].values())
    assert frozen == {"head": OUTPUT}


def test_a_sum_with_the_input_freezes(sketch):
    total = sketch.apply("add", sketch.conv("x", "a", 3), "x", layer="block")
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(total), "head", 2))
    assert cuts == {}
    assert frozen["a"] == "combined by add in block with values that cannot be cut"


def test_parts_of_a_concatenation_are_cut_where_they_lie(sketch):
    a, b = sketch.conv("x", "a", 4), sketch.conv("x", "b", 2)
    joined = sketch.apply("concat", a, b, shape=(1, 6, 2, 2), axis=1)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(joined), "head", 2))
    assert cuts == {
        "a": {("a.weight", 0): each(4), ("head.weight", 1): each(4)},
        "b": {("b.weight", 0): each(2), ("head.weight", 1): each(2, start=4)},
    }


def test_a_sum_of_a_concatenation_couples_part_by_part(sketch):
    a, b, c = (sketch.conv("x", name, size) for name, size in (("a", 4), ("b", 2), ("c", 6)))
    total = sketch.apply("add", sketch.apply("concat", a, b, shape=(1, 6, 2, 2), axis=1), c)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(total), "head", 2))
    assert cuts["a"] == {("a.weight", 0): each(4), ("c.weight", 0): each(4), ("head.weight", 1): each(4)}
    assert cuts["b"][("c.weight", 0)] == each(2, start=4)


def test_a_part_that_cannot_be_cut_leaves_the_other_free(sketch):
    joined = sketch.apply("concat", sketch.conv("x", "a", 4), "x", shape=(1, 7, 2, 2), axis=1)
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(joined), "head", 2))
    assert cuts == {"a": {("a.weight", 0): each(4), ("head.weight", 1): each(4)}}
    assert frozen == {"head": OUTPUT}


def test_one_channel_covers_all_positions_that_are_flattened(sketch):
    flat = sketch.apply("reshape", sketch.conv("x", "a", 3), shape=(1, 12))
    cuts, _ = coupled(sketch, sketch.linear(flat, "head", 2))
    # Height times width is four features a channel.
    assert cuts == {"a": {("a.weight", 0): each(3), ("head.weight", 1): blocks(3, 4)}}


def test_a_depthwise_convolution_hands_channels_on(sketch):
    h = sketch.conv(sketch.conv("x", "a", 4), "depthwise", 4, groups=4)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert cuts == {"a": {(name, axis): each(4) for name, axis in (("a.weight", 0), ("depthwise.weight", 0), ("head.weight", 1))}}  # fmt: skip  # noqa: E501


def test_a_depthwise_convolution_with_a_multiplier_makes_several_channels_of_one(sketch):
    h = sketch.conv(sketch.conv("x", "a", 3), "depthwise", 6, groups=3)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert cuts["a"] == {
        ("a.weight", 0): each(3),
        ("depthwise.weight", 0): blocks(3, 2),
        ("head.weight", 1): blocks(3, 2),
    }


def test_a_grouped_convolution_is_cut_at_the_same_place_in_every_group(sketch):
    h = sketch.conv(sketch.conv("x", "a", 4), "grouped", 6, groups=2)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    # Each group reads two channels of a and makes three: units are one of each group.
    assert cuts == {
        "a": {("a.weight", 0): [[0, 2], [1, 3]], ("grouped.weight", 1): each(2)},
        "grouped": {("grouped.weight", 0): [[0, 3], [1, 4], [2, 5]], ("head.weight", 1): [[0, 3], [1, 4], [2, 5]]},
    }


def test_a_gate_is_coupled_to_what_it_multiplies(sketch):
    a = sketch.conv("x", "a", 4)
    squeezed = sketch.apply("mean", a, shape=(1, 4, 1, 1), axes=(2, 3), keepdim=True)
    gate = sketch.conv(sketch.apply("relu", sketch.conv(squeezed, "reduce", 2)), "expand", 4)
    gated = sketch.apply("mul", a, sketch.apply("sigmoid", gate))
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(gated), "head", 2))
    assert set(cuts["a"]) == {("a.weight", 0), ("reduce.weight", 1), ("expand.weight", 0), ("head.weight", 1)}
    assert set(cuts["reduce"]) == {("reduce.weight", 0), ("expand.weight", 1)}


def test_a_gate_of_one_channel_leaves_what_it_multiplies_free(sketch):
    gated = sketch.apply("mul", sketch.conv("x", "a", 4), sketch.conv("x", "gate", 1))
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(gated), "head", 2))
    assert cuts == {"a": {("a.weight", 0): each(4), ("head.weight", 1): each(4)}}
    assert frozen["gate"] == "it makes a single channel"


def test_a_constant_along_other_axes_does_not_freeze(sketch):
    position = sketch.tensor("position", 1, 1, 2, 2, role="constant")
    number = sketch.tensor("number", role="constant")
    h = sketch.apply("mul", sketch.apply("add", sketch.conv("x", "a", 4), position), number)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert list(cuts) == ["a"]


def test_a_constant_along_the_channels_freezes(sketch):
    offset = sketch.tensor("offset", 4, 1, 1, role="constant")
    h = sketch.apply("add", sketch.conv("x", "a", 4), offset, layer="shift")
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert cuts == {}
    assert frozen["a"] == "combined by add in shift with values that cannot be cut"


def test_a_parameter_along_the_channels_is_cut_with_them(sketch):
    scale = sketch.tensor("gamma", 4, 1, 1, role="parameter")
    h = sketch.apply("mul", sketch.conv("x", "a", 4), scale)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert cuts["a"][("gamma", 0)] == each(4)


def test_channels_can_move_to_another_axis(sketch):
    last = sketch.apply("permute", sketch.conv("x", "a", 4), shape=(1, 2, 2, 4), axes=(0, 2, 3, 1))
    cuts, _ = coupled(sketch, sketch.linear(last, "head", 2))
    assert cuts == {"a": {("a.weight", 0): each(4), ("head.weight", 1): each(4)}}


def test_a_layer_that_is_used_twice_is_coupled_to_itself(sketch):
    h = sketch.conv(sketch.conv(sketch.conv("x", "a", 4), "same", 4), "same", 4)
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    keys = {("a.weight", 0), ("same.weight", 0), ("same.weight", 1), ("head.weight", 1)}
    assert cuts == {"a": dict.fromkeys(keys, each(4))}


def test_two_layers_that_read_the_same_channels_are_cut_alike(sketch):
    a = sketch.conv("x", "a", 4)
    total = sketch.apply("add", sketch.conv(a, "b", 2), sketch.conv(a, "c", 2))
    cuts, _ = coupled(sketch, sketch.linear(sketch.mean(total), "head", 2))
    assert set(cuts["a"]) == {("a.weight", 0), ("b.weight", 1), ("c.weight", 1)}
    assert set(cuts["b"]) == {("b.weight", 0), ("c.weight", 0), ("head.weight", 1)}


# What cannot be cut, and why.


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (
            lambda s, h: s.apply("pad", h, shape=(1, 6, 2, 2), layer="grow", axes=(1,)),
            "padded by a fixed number of channels in grow",
        ),
        (
            lambda s, h: s.apply("layer_norm", h, layer="norm", axes=(1, 2, 3)),
            "normalised together in norm: one less would change the others",
        ),
        (
            lambda s, h: s.apply("softmax", h, layer="vote", axes=(1,)),
            "mixed by softmax together in vote: one less would change the others",
        ),
        (
            lambda s, h: s.apply("channel_shuffle", h, layer="mix"),
            "read by channel_shuffle in mix, which whit cannot cut through",
        ),
        (
            lambda s, h: s.apply("mean", h, shape=(1, 1, 2, 2), layer="squash", axes=(1,), keepdim=True),
            "pooled together by mean in squash",
        ),
        (
            lambda s, h: s.apply("fft", h),
            "read by fft in the network, which whit cannot cut through",
        ),
    ],
)
def test_what_counts_channels_or_is_unknown_freezes_with_a_reason(sketch, draw, reason):
    h = draw(sketch, sketch.conv("x", "a", 4))
    cuts, frozen = coupled(sketch, sketch.conv(h, "head", 2))
    assert cuts == {}
    assert frozen == {"a": reason, "head": OUTPUT}


def test_padding_and_slicing_along_other_axes_are_harmless(sketch):
    h = sketch.apply("pad", sketch.conv("x", "a", 4), shape=(1, 4, 4, 4), axes=(2, 3))
    h = sketch.apply("slice", h, shape=(1, 4, 2, 4), axis=2, start=1, stop=3, step=1)
    cuts, _ = coupled(sketch, sketch.conv(h, "head", 2))
    assert list(cuts) == ["a"]


@pytest.mark.parametrize("kind", ["mul", "add"])
def test_halves_that_meet_again_are_cut_at_the_same_place(sketch, kind):
    a = sketch.conv("x", "a", 6)
    halves = [
        sketch.apply("slice", a, shape=(1, 3, 2, 2), axis=1, start=start, stop=start + 3, step=1) for start in (0, 3)
    ]
    cuts, _ = coupled(sketch, sketch.conv(sketch.apply(kind, *halves), "head", 2))
    assert cuts == {"a": {("a.weight", 0): [[0, 3], [1, 4], [2, 5]], ("head.weight", 1): each(3)}}


def test_parts_of_one_size_stay_of_one_size_though_only_one_is_read(sketch):
    part = sketch.apply("slice", sketch.conv("x", "a", 6), shape=(1, 2, 2, 2), axis=1, start=2, stop=4, step=1)
    cuts, _ = coupled(sketch, sketch.conv(part, "head", 2))
    assert cuts["a"] == {("a.weight", 0): [[0, 2, 4], [1, 3, 5]], ("head.weight", 1): each(2)}


def test_a_part_of_another_size_is_cut_where_it_lies(sketch):
    part = sketch.apply("slice", sketch.conv("x", "a", 5), shape=(1, 2, 2, 2), axis=1, start=0, stop=2, step=1)
    graph = sketch.graph(sketch.conv(part, "head", 2))
    found = couple(graph).groups
    assert [(group.name, group.size, len(group.cuts)) for group in found] == [("a", 2, 2), ("a", 3, 1)]


# Labels that lie on several axes: heads and what each is made of.


def attention(sketch, *, order=(2, 0, 3, 1, 4)):
    """Queries, keys and values of 2 heads with 3 features each, made by one layer."""
    h = sketch.apply("reshape", "tokens", shape=(1, 5, 8))
    qkv = sketch.apply("reshape", sketch.linear(h, "qkv", 18), shape=(1, 5, 3, 2, 3), layer="attention")
    qkv = sketch.apply("permute", qkv, shape=(3, 1, 2, 5, 3), axes=order)
    return [sketch.apply("select", qkv, shape=(1, 2, 5, 3), axis=0, index=place) for place in range(3)]


def joined(sketch, heads):
    back = sketch.apply("permute", heads, shape=(1, 5, 2, 3), axes=(0, 2, 1, 3))
    return sketch.linear(sketch.apply("reshape", back, shape=(1, 5, 6), layer="attention"), "project", 8)


def test_a_feature_is_cut_from_every_head_of_queries_keys_and_values(sketch):
    sketch.tensor("tokens", 1, 5, 8, role="input")
    query, key, value = attention(sketch)
    scores = sketch.apply("contract", query, key, shape=(1, 2, 5, 5), letters=("abnd", "abmd", "abnm"))
    mixed = sketch.apply(
        "contract",
        sketch.apply("softmax", scores, axes=(3,)),
        value,
        shape=(1, 2, 5, 3),
        letters=("abnm", "abme", "abne"),
    )
    graph = sketch.graph(joined(sketch, mixed))
    (group,) = couple(graph).groups
    # Row (part * 2 + head) * 3 + feature of qkv, column head * 3 + feature of the projection.
    assert group.cuts[("qkv.weight", 0)].tolist() == [[f + 3 * row for row in range(6)] for f in range(3)]
    assert group.cuts[("project.weight", 1)].tolist() == [[f, f + 3] for f in range(3)]
    assert {(count.layer, count.size) for count in group.counts} == {("attention", size) for size in (3, 6, 18)}


def test_where_features_are_counted_whole_heads_are_cut(sketch):
    sketch.tensor("tokens", 1, 5, 8, role="input")
    query, key, value = attention(sketch)
    mixed = sketch.apply(
        "contract",
        query,
        key,
        value,
        shape=(1, 2, 5, 3),
        letters=("abnd", "abmd", "abme", "abne"),
        scaled=True,
    )
    (group,) = couple(sketch.graph(joined(sketch, mixed))).groups
    assert group.cuts[("qkv.weight", 0)].tolist() == [
        [part * 6 + head * 3 + f for part in range(3) for f in range(3)] for head in range(2)
    ]
    assert group.cuts[("project.weight", 1)].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_key_head_goes_with_all_query_heads_that_read_it(sketch):
    sketch.tensor("tokens", 1, 5, 8, role="input")
    heads = {}
    for name, count in (("q", 4), ("k", 2), ("v", 2)):
        made = sketch.apply("reshape", sketch.linear("tokens", name, 3 * count), shape=(1, 5, count, 3), layer="gqa")
        heads[name] = sketch.apply("permute", made, shape=(1, count, 5, 3), axes=(0, 2, 1, 3))
    mixed = sketch.apply(
        "contract", *heads.values(), shape=(1, 4, 5, 3), letters=("abnd", "abmd", "abme", "abne"), scaled=True
    )
    back = sketch.apply("permute", mixed, shape=(1, 5, 4, 3), axes=(0, 2, 1, 3))
    h = sketch.linear(sketch.apply("reshape", back, shape=(1, 5, 12), layer="gqa"), "project", 8)
    (group,) = couple(sketch.graph(h)).groups
    assert group.size == 2
    assert group.cuts[("k.weight", 0)].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert group.cuts[("q.weight", 0)].tolist() == blocks(2, 6)


def test_a_channel_shuffle_cuts_the_same_place_of_every_group(sketch):
    h = sketch.apply("reshape", sketch.conv("x", "a", 6), shape=(1, 2, 3, 2, 2), layer="shuffle")
    h = sketch.apply("permute", h, shape=(1, 3, 2, 2, 2), axes=(0, 2, 1, 3, 4))
    h = sketch.apply("reshape", h, shape=(1, 6, 2, 2), layer="shuffle")
    cuts, _ = coupled(sketch, sketch.conv(h, "head", 2))
    assert cuts == {"a": {("a.weight", 0): [[0, 3], [1, 4], [2, 5]], ("head.weight", 1): blocks(3, 2)}}


def test_whole_groups_of_a_group_normalisation_are_cut(sketch):
    scale = sketch.tensor("norm.weight", 6, role="parameter")
    h = sketch.apply("group_norm", sketch.conv("x", "a", 6), scale, layer="norm", groups=3)
    cuts, _ = coupled(sketch, sketch.conv(h, "head", 2))
    assert cuts == {"a": {(name, axis): blocks(3, 2) for name, axis in (("a.weight", 0), ("norm.weight", 0), ("head.weight", 1))}}  # fmt: skip  # noqa: E501


def test_a_pixel_shuffle_makes_one_channel_of_several(sketch):
    h = sketch.apply("gathered", sketch.conv("x", "a", 8), shape=(1, 2, 4, 4), times=4)
    cuts, _ = coupled(sketch, sketch.conv(h, "head", 2))
    assert cuts == {"a": {("a.weight", 0): blocks(2, 4), ("head.weight", 1): each(2)}}


def test_a_hidden_unit_of_an_lstm_is_a_row_of_every_gate(sketch):
    sketch.tensor("words", 1, 5, 3, role="input")
    names = [sketch.tensor(f"rnn.{name}", *shape, role="parameter") for name, shape in (("ih", (8, 3)), ("hh", (8, 2)), ("b", (8,)))]  # fmt: skip  # noqa: E501
    h = sketch.apply("lstm", "words", *names, shape=(1, 5, 2), layer="rnn", layers=((tuple(names),),))
    cuts, _ = coupled(sketch, sketch.linear(h, "head", 2))
    rows = [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert cuts == {
        "rnn": {("rnn.ih", 0): rows, ("rnn.hh", 0): rows, ("rnn.b", 0): rows}
        | {("rnn.hh", 1): each(2), ("head.weight", 1): each(2)}
    }


def test_a_transposed_convolution_reads_on_its_first_axis(sketch):
    weight = sketch.tensor("up.weight", 4, 2, 3, 3, role="parameter")
    h = sketch.apply("conv_transpose", sketch.conv("x", "a", 4), weight, shape=(1, 2, 4, 4), layer="up", groups=1)
    cuts, _ = coupled(sketch, sketch.conv(h, "head", 2))
    assert cuts["a"] == {("a.weight", 0): each(4), ("up.weight", 0): each(4)}
    assert cuts["up"] == {("up.weight", 1): each(2), ("head.weight", 1): each(2)}


def test_an_unknown_operation_freezes_the_parameters_it_reads(sketch):
    weight = sketch.tensor("odd.weight", 4, 4, role="parameter")
    h = sketch.apply("einsum", sketch.conv("x", "a", 4), weight, layer="odd")
    h = sketch.conv(h, "b", 5)
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    assert list(cuts) == ["b"]
    assert frozen["a"] == "read by einsum in odd, which whit cannot cut through"


def test_a_tensor_that_is_also_an_output_is_frozen(sketch):
    a = sketch.conv("x", "a", 4)
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(a), "head", 2), a)
    assert cuts == {}
    assert frozen == {"a": OUTPUT, "head": OUTPUT}


def test_freezing_one_channel_of_a_layer_names_the_layer_and_leaves_the_rest(sketch):
    a, b = sketch.conv("x", "a", 4), sketch.conv("x", "b", 2)
    joined = sketch.apply("concat", b, "x", shape=(1, 5, 2, 2), axis=1)
    wide = sketch.conv("x", "wide", 5)
    total = sketch.apply("add", joined, wide, layer="sum")
    h = sketch.apply("concat", a, total, shape=(1, 9, 2, 2), axis=1)
    cuts, frozen = coupled(sketch, sketch.linear(sketch.mean(h), "head", 2))
    # Two channels of wide meet b, three meet the input.
    assert cuts["b"][("wide.weight", 0)] == each(2)
    assert frozen["wide"] == "combined by add in sum with values that cannot be cut"
    assert "b" not in frozen


def test_the_weight_of_a_layer_that_is_computed_freezes_nothing_else(sketch):
    weight = sketch.tensor("computed", 2, 4, role="activation")
    h = sketch.mean(sketch.conv("x", "a", 4))
    cuts, frozen = coupled(sketch, sketch.apply("linear", h, weight, shape=(1, 2), layer="head"))
    assert cuts == {}
    assert list(frozen) == ["a"]


def test_a_batch_of_samples_is_no_axis_to_cut(sketch):
    sketch.tensor("x", 4, 3, 2, 2, role="input")
    flat = sketch.apply("reshape", sketch.conv("x", "a", 3), shape=(4, 12))
    cuts, _ = coupled(sketch, sketch.linear(flat, "head", 2))
    assert cuts["a"][("head.weight", 1)] == blocks(3, 4)


def test_outputs_may_be_cut_where_that_is_asked(sketch):
    h = sketch.mean(sketch.conv("x", "a", 4))
    parts = [sketch.linear(h, "one", 2), sketch.linear(h, "two", 3)]
    graph = sketch.graph(sketch.apply("concat", *parts, shape=(1, 5), axis=1, layer="joined"))
    assert all(not group.outputs for group in couple(graph).groups)
    found = couple(graph, outputs=True)
    where = (graph.outputs[0], 1)
    assert {group.name: {key: made.tolist() for key, made in group.outputs.items()} for group in found.groups} == {
        "a": {},
        "one": {where: each(2)},
        "two": {where: each(3, start=2)},
    }
    assert [list(group.cuts) for group in found.groups[1:]] == [[("one.weight", 0)], [("two.weight", 0)]]
    assert found.frozen == {}


def test_outputs_that_are_a_table_of_samples_stay(sketch):
    turned = sketch.apply("permute", sketch.linear(sketch.mean("x"), "head", 2), shape=(2, 1), axes=(1, 0))
    assert couple(sketch.graph(turned), outputs=True).frozen == {"head": OUTPUT}
