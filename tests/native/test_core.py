"""The native core through its bindings; native/tests holds what needs no Python."""

import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import _core

FINITE = st.floats(-1e4, 1e4, width=32)
POSITIVE = st.floats(2.0**-10, 2.0**10, width=32)


@st.composite
def quantizations(draw):
    """Weights with a scale and zero point for each group, shared by all rows or not."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    group_size = draw(st.integers(1, 24))
    bits = draw(st.integers(2, 8))
    low = draw(st.sampled_from([0, -(2 ** (bits - 1))]))
    high = low + 2**bits - 1
    shape = (draw(st.sampled_from([1, rows])), -(-columns // group_size))
    return {
        "weights": draw(hnp.arrays(np.float32, (rows, columns), elements=FINITE)),
        "scale": draw(hnp.arrays(np.float32, shape, elements=POSITIVE)),
        "zero_point": draw(hnp.arrays(np.int32, shape, elements=st.integers(low, high))),
        "group_size": group_size,
        "low": low,
        "high": high,
    }


def per_weight(parameter, weights, group_size):
    """Spreads a value for each group over its columns, and one row over all rows."""
    return np.broadcast_to(np.repeat(parameter, group_size, axis=1)[:, : weights.shape[1]], weights.shape)


def one_group(weights, scale=1.0, zero_point=0, low=-8, high=7, threads=1):
    """Quantizes a list of weights with one scale."""
    return _core.quantize(
        np.array([weights], np.float32),
        np.array([[scale]], np.float32),
        np.array([[zero_point]], np.int32),
        max(len(weights), 1),
        low,
        high,
        threads,
    )


@given(quantizations())
def test_quantize_is_divide_round_shift_clamp(case):
    scale = per_weight(case["scale"], case["weights"], case["group_size"])
    zero_point = per_weight(case["zero_point"], case["weights"], case["group_size"])
    # np.rint rounds halves to even; float64 holds every quotient of these strategies exactly enough,
    # because the division before it is in float32 as ONNX demands.
    rounded = np.rint(case["weights"] / scale).astype(np.float64)
    expected = np.clip(rounded + zero_point, case["low"], case["high"]).astype(np.int32)
    codes = _core.quantize(**case)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, expected)


@given(quantizations())
def test_dequantize_undoes_quantize_up_to_half_a_scale(case):
    codes = _core.quantize(**case)
    weights = _core.dequantize(codes, case["scale"], case["zero_point"], case["group_size"])
    scale = per_weight(case["scale"], weights, case["group_size"])
    unclamped = (codes > case["low"]) & (codes < case["high"])
    error = np.abs(weights - case["weights"])
    rounding = 1e-6 * np.abs(case["weights"])
    assert np.all((error <= scale / 2 + rounding)[unclamped])


@given(quantizations())
def test_quantize_gives_dequantized_weights_their_codes_back(case):
    codes = _core.quantize(**case)
    case["weights"] = _core.dequantize(codes, case["scale"], case["zero_point"], case["group_size"])
    np.testing.assert_array_equal(_core.quantize(**case), codes)


@given(quantizations(), st.integers(2, 8))
def test_threads_change_nothing(case, threads):
    codes = _core.quantize(**case)
    np.testing.assert_array_equal(_core.quantize(**case, threads=threads), codes)
    grid = case["scale"], case["zero_point"], case["group_size"]
    np.testing.assert_array_equal(_core.dequantize(codes, *grid, threads=threads), _core.dequantize(codes, *grid))


def test_quantize_equals_onnx_quantize_linear():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(16, 33)).astype(np.float32)
    scale = rng.uniform(0.005, 0.05, 16).astype(np.float32)
    # Half of the weights lie exactly between two codes in float32, where ways of rounding differ.
    weights[:, ::2] = (rng.integers(-120, 120, (16, 17)).astype(np.float32) + np.float32(0.5)) * scale[:, None]
    zero_point = rng.integers(-20, 20, 16).astype(np.int8)

    node = onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["y"], axis=0)
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "quantize",
        [
            tensor("x", onnx.TensorProto.FLOAT, weights.shape),
            tensor("scale", onnx.TensorProto.FLOAT, scale.shape),
            tensor("zero_point", onnx.TensorProto.INT8, zero_point.shape),
        ],
        [tensor("y", onnx.TensorProto.INT8, weights.shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    feeds = {"x": weights, "scale": scale, "zero_point": zero_point}

    ours = _core.quantize(weights, scale[:, None], zero_point[:, None].astype(np.int32), 33, -128, 127)
    np.testing.assert_array_equal(ours, ReferenceEvaluator(model).run(None, feeds)[0])

    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(ours, session.run(None, feeds)[0])


@pytest.mark.parametrize(
    ("weights", "codes"),
    [
        ([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], [-2, -2, 0, 0, 2, 2]),  # halves to even
        ([-9, 9, 1e38, -1e38], [-8, 7, 7, -8]),  # saturated
    ],
)
def test_quantize_pinned(weights, codes):
    assert one_group(weights).tolist() == [codes]


def test_no_weights_have_no_codes():
    scale, zero_point = np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32)
    assert _core.quantize(np.zeros((0, 4), np.float32), scale, zero_point, 4, -8, 7).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1, np.nan, np.inf]}, "weights of shape (1, 3) hold 1 NaN and 1 infinite values"),
        ({"scale": 0.0}, "scale at row 0, group 0 is 0.000000"),
        ({"scale": np.inf}, "a scale must be positive and finite"),
        ({"zero_point": 8}, "zero_point holds 8, which is outside the range of codes [-8, 7]"),
        ({"low": 8}, "The range of codes [8, 7] is empty"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_quantize_names_the_mistake(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        one_group(**{"weights": [1.0]} | change)


def test_shapes_that_do_not_fit_are_named():
    weights = np.zeros((2, 10), np.float32)
    scale, zero_point = np.ones((2, 2), np.float32), np.zeros((2, 2), np.int32)
    message = "scale has shape (2, 2), but an array of shape (2, 10) in groups of 4 columns needs (1, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        _core.quantize(weights, scale, zero_point, 4, -8, 7)
    with pytest.raises(ValueError, match=re.escape("zero_point has shape (1, 2), but scale has shape (2, 2)")):
        _core.dequantize(weights.astype(np.int32), scale, zero_point[:1].copy(), 5)


@pytest.mark.parametrize(
    ("given", "described"),
    [
        (np.zeros(3, np.float64), "float64 of shape (3,)"),
        (np.zeros((3, 1), np.float32), "float32 of shape (3, 1)"),
        (np.zeros(6, np.float32)[::2], "C-contiguous"),
        ([1.0, 2.0], "of type list"),
    ],
)
def test_arrays_of_another_kind_are_described(given, described):
    with pytest.raises(TypeError, match=re.escape(described)) as caught:
        _core.prune(given, 1)
    assert "numpy.ascontiguousarray(scores, dtype=numpy.float32)" in str(caught.value)


def test_read_only_arrays_are_accepted_and_left_alone():
    scores = np.array([2, 1], np.float32)
    scores.flags.writeable = False
    assert _core.prune(scores, 1).tolist() == [True, False]


@given(st.data(), hnp.arrays(np.float32, st.integers(0, 60), elements=st.integers(-5, 5)))
def test_prune_equals_a_stable_sort(data, scores):
    count = data.draw(st.integers(0, scores.size))
    expected = np.ones(scores.size, bool)
    expected[np.argsort(scores, kind="stable")[:count]] = False
    mask = _core.prune(scores, count)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("scores", "count", "message"),
    [
        ([1, 2], 3, "count is 3, but of 2 scores"),
        ([1, 2], -1, "count is -1"),
        ([1, np.nan, np.nan], 1, "2 NaN among 3 values"),
    ],
)
def test_prune_names_the_mistake(scores, count, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _core.prune(np.array(scores, np.float32), count)


@given(st.data(), st.integers(1, 16), st.integers(-(2**31), 2**31 - 2**16))
def test_unpack_bits_is_the_inverse_of_pack_bits(data, bits, low):
    elements = st.integers(low, low + 2**bits - 1)
    codes = data.draw(hnp.arrays(np.int32, st.integers(0, 50), elements=elements))
    packed = _core.pack_bits(codes, bits, low)
    assert packed.nbytes == -(-codes.size * bits // 8)
    np.testing.assert_array_equal(_core.unpack_bits(packed, codes.size, bits, low), codes)


@given(st.data(), st.integers(1, 16))
def test_pack_bits_is_numpy_packbits_of_the_bits(data, bits):
    codes = data.draw(hnp.arrays(np.int32, st.integers(0, 50), elements=st.integers(0, 2**bits - 1)))
    fields = (codes[:, None] >> np.arange(bits)) & 1
    expected = np.packbits(fields.astype(np.uint8), bitorder="little")
    np.testing.assert_array_equal(_core.pack_bits(codes, bits, 0), expected)


@given(st.binary(max_size=20), st.integers(0, 40), st.integers(1, 16))
def test_bytes_are_refused_or_come_back_whole(blob, count, bits):
    packed = np.frombuffer(blob, np.uint8)
    try:
        codes = _core.unpack_bits(packed, count, bits, 0)
    except ValueError:
        return
    np.testing.assert_array_equal(_core.pack_bits(codes, bits, 0), packed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _core.pack_bits(np.array([0, 8], np.int32), 4, -8), "The code at index 1 is 8, but 4 bits"),
        (lambda: _core.pack_bits(np.array([0], np.int32), 17, 0), "bits is 17"),
        (lambda: _core.unpack_bits(np.zeros(2, np.uint8), 2, 4, 0), "take 1 bytes, but 2 were given"),
        (lambda: _core.unpack_bits(np.zeros(2, np.uint8), 2**62, 16, 0), "but 2 were given"),
        (lambda: _core.unpack_bits(np.zeros(0, np.uint8), -1, 4, 0), "count is -1"),
        (lambda: _core.unpack_bits(np.array([16], np.uint8), 1, 4, 0), "left-over bits"),
    ],
)
def test_bit_packing_names_the_mistake(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_results_outlive_their_inputs_and_own_their_memory():
    mask = _core.prune(np.arange(10**6, dtype=np.float32), 10)
    assert mask.flags.writeable
    assert mask.sum() == 10**6 - 10


def test_python_threads_can_share_the_core():
    scores = np.random.default_rng(0).normal(size=10**5).astype(np.float32)
    expected = _core.prune(scores, 5 * 10**4)
    masks = []
    workers = [threading.Thread(target=lambda: masks.append(_core.prune(scores, 5 * 10**4))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(masks) == 4
    assert all(np.array_equal(mask, expected) for mask in masks)
