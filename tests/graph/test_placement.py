"""Where activations are rounded, on networks drawn by hand."""

import math

import pytest

from whit.graph import placement
from whit.graph.placement import Place, integer_inputs


def rounded_activations(graph, weights):
    """Which activations are rounded for which weight, where there is no format for residuals."""
    places = placement.rounded_activations(graph, weights)
    assert not any(place.residual for place in places.values())
    return {name: place.weight for name, place in places.items()}


def test_a_layer_reads_and_hands_on_rounded_values(sketch):
    a = sketch.apply("relu", sketch.norm(sketch.conv("x", "a", 4), "n"))
    b = sketch.apply("relu", sketch.conv(a, "b", 4))
    graph = sketch.graph(sketch.linear(sketch.mean(b), "head", 2))
    # Rounded after the batch norm and the activation function, which runtimes merge into the convolution.
    assert rounded_activations(graph, ["a.weight", "b.weight"]) == {
        "x": "a.weight",
        a: "b.weight",
        b: "b.weight",
    } | dict.fromkeys([operation.output for operation in graph.operations if operation.kind == "mean"], "b.weight")


def test_the_output_of_the_network_stays_in_floating_point(sketch):
    a = sketch.conv("x", "a", 4)
    assert rounded_activations(sketch.graph(a), ["a.weight"]) == {"x": "a.weight"}
    flat = sketch.apply("reshape", a, shape=(1, 16))
    assert rounded_activations(sketch.graph(flat), ["a.weight"]) == {"x": "a.weight"}


def test_a_linear_layer_hands_on_floats_but_to_another_layer_in_integers(sketch):
    a = sketch.apply("relu", sketch.linear("x", "a", 4))
    b = sketch.linear(a, "b", 4)
    graph = sketch.graph(sketch.apply("softmax", sketch.apply("add", b, a)))
    assert rounded_activations(graph, ["a.weight", "b.weight"]) == {"x": "a.weight", a: "b.weight"}


def test_layers_that_are_not_rounded_ask_for_nothing(sketch):
    a = sketch.conv("x", "a", 4)
    b = sketch.conv(a, "b", 4)
    graph = sketch.graph(sketch.linear(sketch.mean(b), "head", 2))
    assert rounded_activations(graph, []) == {}
    assert rounded_activations(graph, ["head.weight"]) == {sketch.operations[-2].output: "head.weight"}


def test_a_sum_of_rounded_values_is_rounded_after_its_activation(sketch):
    a = sketch.conv("x", "a", 3)
    total = sketch.apply("relu", sketch.apply("add", a, "x"))
    graph = sketch.graph(sketch.conv(total, "head", 2))
    assert rounded_activations(graph, ["a.weight"]) == {"x": "a.weight", a: "a.weight", total: "a.weight"}


def test_a_sum_with_a_value_that_is_not_rounded_is_not(sketch):
    other = sketch.apply("sigmoid", "x")
    total = sketch.apply("add", sketch.conv("x", "a", 3), other)
    graph = sketch.graph(sketch.conv(total, "head", 2))
    assert total not in rounded_activations(graph, ["a.weight"])


def test_values_are_rounded_where_they_are_made_not_where_they_are_moved(sketch):
    a = sketch.apply("relu", sketch.conv("x", "a", 3))
    flat = sketch.apply("reshape", a, shape=(1, 12))
    graph = sketch.graph(sketch.apply("sigmoid", sketch.linear(flat, "head", 2)))
    rounded = rounded_activations(graph, ["head.weight"])
    assert rounded[a] == "head.weight"
    assert flat not in rounded


def test_a_value_that_two_read_is_rounded_before_both(sketch):
    a = sketch.conv("x", "a", 4)
    relu = sketch.apply("relu", a)
    total = sketch.apply("add", relu, a)
    graph = sketch.graph(sketch.conv(total, "head", 2))
    # The convolution's own output is read twice, so no runtime merges the ReLU into it.
    assert rounded_activations(graph, ["a.weight"])[a] == "a.weight"


def test_inputs_of_integer_layers_are_found_through_what_moves_values(sketch):
    a = sketch.conv("x", "a", 3)
    flat = sketch.apply("reshape", a, shape=(1, 12))
    graph = sketch.graph(sketch.linear(flat, "head", 2))
    found = [(operation.layer, source) for operation, source in integer_inputs(graph, ["a.weight", "head.weight"])]
    assert found == [("a", "x"), ("head", a)]


# With a format for residuals.


def residual_block(sketch):
    """``relu(second(relu(first(x))) + x)`` for ``x`` that a stem makes, and a head."""
    x = sketch.apply("relu", sketch.conv("x", "stem", 4))
    inner = sketch.apply("relu", sketch.conv(x, "first", 4))
    outer = sketch.conv(inner, "second", 4)
    total = sketch.apply("relu", sketch.apply("add", outer, x))
    pooled = sketch.mean(total)
    return sketch.graph(sketch.linear(pooled, "head", 2)), x, inner, outer, total, pooled


def test_what_others_read_beside_a_layer_takes_the_format_of_residuals_and_the_layers_for_it_alone(sketch):
    graph, x, inner, outer, total, pooled = residual_block(sketch)
    blocks = ["first.weight", "second.weight"]
    found = placement.rounded_activations(graph, ["stem.weight", *blocks, "head.weight"], blocks)
    first = next(operation for operation in graph.operations if operation.layer == "first")
    assert found == {
        "x": Place("stem.weight"),
        x: Place("first.weight", residual=True),
        first.own_input: Place("first.weight"),
        inner: Place("second.weight"),
        outer: Place("second.weight", residual=True),
        total: Place("second.weight", residual=True),
        pooled: Place("head.weight"),
    }


def test_a_layer_without_a_format_for_residuals_decides_what_it_reads_for_all(sketch):
    graph, x, *_ = residual_block(sketch)
    other = ["stem.weight", "first.weight", "second.weight"]
    found = placement.rounded_activations(graph, other, ["second.weight"])
    assert found[x] == Place("first.weight")
    assert not [name for name in found if name.endswith(".input")]


def test_the_output_of_the_network_and_what_moves_values_are_looked_through(sketch):
    a = sketch.apply("relu", sketch.conv("x", "a", 3))
    flat = sketch.apply("reshape", a, shape=(1, 12))
    head = sketch.linear(flat, "head", 2)
    alone = placement.rounded_activations(sketch.graph(head), ["head.weight"], ["head.weight"])
    assert alone == {a: Place("head.weight")}
    shared = placement.rounded_activations(sketch.graph(head, flat), ["head.weight"], ["head.weight"])
    assert shared == {a: Place("head.weight", residual=True), f"{head}.input": Place("head.weight")}


@pytest.mark.parametrize(("value", "moves"), [(0.0, True), (None, True), (-math.inf, True), (1.0, False)])
def test_values_are_rounded_before_they_are_padded_with_what_is_on_every_grid(sketch, value, moves):
    a = sketch.apply("relu", sketch.conv("x", "a", 3))
    padded = sketch.apply("pad", a, shape=(1, 3, 4, 4), axes=(2, 3), value=value)
    graph = sketch.graph(sketch.apply("sigmoid", sketch.conv(padded, "head", 2)))
    rounded = rounded_activations(graph, ["head.weight"])
    assert (a in rounded, padded in rounded) == (moves, not moves)


def test_what_the_last_softmax_reads_stays_in_floating_point(sketch):
    a = sketch.conv("x", "a", 4)
    shares = sketch.apply("softmax", a)
    assert rounded_activations(sketch.graph(shares), ["a.weight"]) == {"x": "a.weight"}
    after = sketch.conv(shares, "b", 2)
    assert a in rounded_activations(sketch.graph(after), ["a.weight"])
