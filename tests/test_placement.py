"""Where activations are rounded, on networks drawn by hand."""

from whit.placement import integer_inputs, rounded_activations


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
