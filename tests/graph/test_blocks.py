"""Where networks can be taken apart."""

from whit.graph.blocks import blocks


def parts(graph):
    return [
        (block.reads, block.makes, [name.removesuffix(".weight") for name in block.weights]) for block in blocks(graph)
    ]


def test_layers_one_behind_the_other_are_blocks_with_what_follows_them(sketch):
    a = sketch.apply("relu", sketch.norm(sketch.conv("x", "a", 4), "n"))
    b = sketch.mean(sketch.apply("relu", sketch.conv(a, "b", 4)))
    y = sketch.linear(b, "head", 2)
    assert parts(sketch.graph(y)) == [(None, a, ["a"]), (a, b, ["b"]), (b, y, ["head"])]


def test_what_lies_between_the_ends_of_a_shortcut_is_one_block(sketch):
    a = sketch.conv("x", "a", 4)
    inside = sketch.conv(sketch.apply("relu", sketch.conv(a, "b", 4)), "c", 4)
    end = sketch.mean(sketch.apply("relu", sketch.apply("add", inside, a)))
    y = sketch.linear(end, "head", 2)
    assert parts(sketch.graph(y)) == [(None, a, ["a"]), (a, end, ["b", "c"]), (end, y, ["head"])]


def test_what_depends_on_no_layer_joins_no_blocks(sketch):
    mask = sketch.apply("clip", "x", low=0.0, high=1.0)
    a = sketch.apply("mul", sketch.conv("x", "a", 3), mask)
    b = sketch.apply("mul", sketch.conv(a, "b", 3), mask)
    assert parts(sketch.graph(b)) == [(None, a, ["a"]), (a, b, ["b"])]


def test_branches_that_both_read_the_inputs_are_blocks_of_which_the_second_adds_the_first(sketch):
    left, right = sketch.conv("x", "a", 4), sketch.conv("x", "b", 4)
    y = sketch.apply("add", left, right)
    assert parts(sketch.graph(y)) == [(None, left, ["a"]), (left, y, ["b"])]


def test_a_layer_that_is_used_twice_is_in_both_blocks(sketch):
    a = sketch.conv("x", "a", 3)
    b = sketch.conv(a, "a", 3)
    assert parts(sketch.graph(b)) == [(None, a, ["a"]), (a, b, ["a"])]


def test_without_layers_there_are_no_blocks(sketch):
    assert blocks(sketch.graph(sketch.apply("relu", "x"))) == ()
