"""A network as data: its layers, its operations, its cost."""

import pytest


def test_macs_are_those_of_one_sample(sketch):
    sketch.tensor("x", 5, 3, 8, 8, role="input")
    conv = sketch.conv("x", "conv", 16)
    depthwise = sketch.conv(conv, "depthwise", 16, groups=16)
    head = sketch.linear(sketch.mean(depthwise), "head", 10, bias=True)
    graph = sketch.graph(head, batch=5)
    # Positions x output channels x weights that each of them reads; nothing else counts.
    expected = {"conv": 64 * 16 * 3 * 9, "depthwise": 64 * 16 * 1 * 9, "head": 10 * 16}
    assert {layer.name: layer.macs for layer in graph.layers()} == expected
    assert graph.macs() == sum(expected.values())


def test_a_linear_layer_counts_at_every_position(sketch):
    sketch.tensor("tokens", 2, 7, 4, role="input")
    graph = sketch.graph(sketch.linear("tokens", "project", 6), batch=2)
    assert graph.macs() == 7 * 6 * 4


def test_a_layer_is_listed_once_and_costs_what_all_its_uses_cost(sketch):
    once = sketch.conv("x", "same", 3)
    twice = sketch.conv(once, "same", 3)
    graph = sketch.graph(twice)
    (layer,) = graph.layers()
    assert layer.macs == 2 * 4 * 3 * 3 * 9
    assert len(list(graph.matrix_operations())) == 2


def test_a_layer_is_named_after_its_weight(sketch):
    h = sketch.conv("x", "body.0.conv", 4, bias=True)
    tied = sketch.tensor("embedding", 5, 4, role="parameter")
    h = sketch.apply("linear", sketch.mean(h), tied, shape=(1, 5))
    first, second = sketch.graph(h).layers()
    assert (first.name, first.weight, first.bias) == ("body.0.conv", "body.0.conv.weight", "body.0.conv.bias")
    assert (first.kind, second.kind) == ("conv", "linear")
    assert (second.name, second.weight, second.bias) == ("embedding", "embedding", None)


@pytest.mark.parametrize("role", ["constant", "activation"])
def test_an_operation_whose_weight_is_no_parameter_is_no_layer(sketch, role):
    weight = sketch.tensor("computed", 2, 3, role=role)
    h = sketch.apply("linear", sketch.mean("x"), weight, shape=(1, 2))
    assert sketch.graph(h).layers() == ()
    assert sketch.graph(h).macs() == 2 * 3


def test_a_bias_that_is_no_parameter_is_none_of_the_layers(sketch):
    weight = sketch.tensor("head.weight", 2, 3, role="parameter")
    bias = sketch.tensor("computed", 2, role="constant")
    h = sketch.apply("linear", sketch.mean("x"), weight, bias, shape=(1, 2))
    assert sketch.graph(h).layers()[0].bias is None


def test_consumers_are_all_operations_that_read_a_tensor(sketch):
    a = sketch.conv("x", "a", 3)
    total = sketch.apply("add", a, "x")
    graph = sketch.graph(total)
    readers = graph.consumers()
    assert [operation.kind for operation in readers["x"]] == ["conv", "add"]
    assert [operation.kind for operation in readers[a]] == ["add"]
    assert readers[total] == []


def test_shapes_and_roles_are_looked_up_by_name(sketch):
    graph = sketch.graph(sketch.conv("x", "a", 4))
    assert graph.shape("a.weight") == (4, 3, 3, 3)
    assert graph.is_parameter("a.weight")
    assert not graph.is_parameter("x")
    assert not graph.is_parameter("absent")
