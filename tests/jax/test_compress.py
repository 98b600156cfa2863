"""What whit.jax.compress does to a pytree."""

import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import whit
import whit.jax
from whit import (
    Distill,
    Equalize,
    Factorize,
    Finetune,
    FoldBatchNorm,
    FoldParametrizations,
    Int,
    LearnedRounding,
    OptimalBrain,
    Plan,
    PlanError,
    Prune,
    Quantize,
    Rule,
    Taylor,
)
from whit.decide import Skipped


class Dense(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.fixture
def params():
    return {
        "params": {
            "conv": {"kernel": normal(3, 3, 2, 8, seed=1), "bias": normal(8, seed=2)},
            "dense": Dense(normal(8, 6, seed=3), normal(6, seed=4)),
        },
        "blocks": [(normal(6, 4, seed=5), None), (normal(6, 4, seed=6), "gelu")],
        "step": jnp.array(3, jnp.int32),
        "table": jnp.arange(6).reshape(2, 3),
        "eps": 1e-5,
        "activation": jax.nn.relu,
        "key": jax.random.key(0),
    }


LAYERS = {"blocks.0.0", "blocks.1.0", "params.conv.kernel", "params.dense.kernel"}


def leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, jax.Array | np.ndarray) and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert type(a) is type(b)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a is b or a == b
    return True


def test_layers_are_floating_point_arrays_of_two_or_more_axes(params):
    result = whit.jax.compress(params, Quantize())
    assert set(result.ledger.rounded()) == LAYERS
    assert set(result.ledger.assigned()) == {"params.conv.bias", "params.dense.bias", "step", "table"}
    assert result.skipped == ()


def test_structure_types_and_other_leaves_stay(params):
    result = whit.jax.compress(params, Plan(Prune(amount=0.5), Quantize(weights=Int(bits=3))))
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    for name, leaf in leaves(params).items():
        found = leaves(result.params)[name]
        assert type(found) is type(leaf)
        if isinstance(leaf, jax.Array):
            assert (found.dtype, found.shape, found.sharding) == (leaf.dtype, leaf.shape, leaf.sharding)
        else:
            assert found is leaf
    for unchanged in ("step", "table", "key"):
        assert bool((result.params[unchanged] == params[unchanged]).all())
    assert bool((result.params["params"]["dense"].bias == params["params"]["dense"].bias).all())


def test_input_is_untouched(params):
    params["numpy"] = np.ones((2, 3), np.float32) / 3
    before = jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, params)
    result = whit.jax.compress(params, Plan(Prune(amount=0.5), Quantize(weights=Int(bits=2))))
    assert same_bits(params, before)
    result.params["numpy"][:] = 0
    assert same_bits(params, before)


def test_numpy_arrays_stay_numpy_arrays():
    params = {
        "w": np.ones((2, 3), np.float32),
        "wide": np.ones(2),
        "scalar": np.float32(0.1),
        "flags": np.array([True]),
    }
    result = whit.jax.compress(params, Quantize())
    assert {name: type(leaf) for name, leaf in result.params.items()} == {name: type(x) for name, x in params.items()}
    assert {name: leaf.dtype for name, leaf in result.params.items()} == {name: x.dtype for name, x in params.items()}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("target", "grids"),
    [
        ({"per": "tensor"}, (1, 1)),
        ({"per": "channel"}, (8, 1)),
        ({"per": "group", "group_size": 5}, (8, 4)),
    ],
)
@pytest.mark.parametrize("channel_axis", [-1, 0, 1])
def test_weights_are_codes_times_scales_as_delivered(symmetric, target, grids, channel_axis):
    shape = np.insert([3, 6], channel_axis % 3, 8)
    kernel = normal(*shape)
    result = whit.jax.compress(
        [kernel], Quantize(weights=Int(bits=4, symmetric=symmetric, **target)), channel_axis=channel_axis
    )
    rounded = result.ledger.rounded()["0"]
    assert rounded.scale.shape == rounded.zero_point.shape == grids
    columns = np.arange(18) // (target.get("group_size") or 18)
    scale, zero_point = (np.broadcast_to(x[:, columns], (8, 18)) for x in (rounded.scale, rounded.zero_point))
    matrix = np.moveaxis(np.asarray(result.params[0]), channel_axis, 0).reshape(8, 18)
    np.testing.assert_array_equal(matrix, (rounded.codes - zero_point).astype(np.float32) * scale)
    original = np.moveaxis(np.asarray(kernel), channel_axis, 0).reshape(8, 18)
    assert (np.abs(matrix - original) <= scale * 0.51).all() or not symmetric


def test_every_output_channel_has_its_own_grid():
    kernel = jnp.array([[1.0, 100.0], [0.5, 30.0], [0.25, -70.0]])
    last = whit.jax.compress(kernel, Quantize())
    first = whit.jax.compress(kernel.T, Quantize(), channel_axis=0)
    np.testing.assert_array_equal(last.ledger.rounded()["weights"].scale, np.float32([[1], [100]]) / np.float32(127))
    np.testing.assert_array_equal(last.params, first.params.T)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_takes_the_smallest_magnitudes(params, scope):
    result = whit.jax.compress(params, Prune(amount=0.75, scope=scope))
    masks = result.ledger.masks()
    assert set(masks) == LAYERS
    arrays = {name: np.asarray(leaf) for name, leaf in whit.jax.pytree.arrays_of(params).items() if name in LAYERS}
    pools = [[name] for name in LAYERS] if scope == "layer" else [list(LAYERS)]
    for pool in pools:
        kept = np.concatenate([np.abs(arrays[name][masks[name].mask]) for name in pool])
        gone = np.concatenate([np.abs(arrays[name][~masks[name].mask]) for name in pool])
        assert gone.size == round(0.75 * (kept.size + gone.size))
        assert gone.max() <= kept.min()


def test_pruned_weights_cannot_be_binary(params):
    plan = Plan(Prune(amount=0.6), Quantize(weights=Int(bits=1), rules=(Rule(layers="blocks.*"),)))
    with pytest.raises(PlanError, match=r"params\..*kernel was pruned, and int1 has no zero"):
        whit.jax.compress(params, plan)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 8])
def test_masks_hold_through_quantize(params, symmetric, bits):
    target = Int(bits=bits, symmetric=symmetric, per="group", group_size=3)
    result = whit.jax.compress(params, Plan(Prune(amount=0.6), Quantize(weights=target)))
    after = whit.jax.pytree.arrays_of(result.params)
    for name, masked in result.ledger.masks().items():
        assert np.asarray(after[name])[~masked.mask].tolist() == [0.0] * int((~masked.mask).sum())


def test_rules_match_whole_paths(params):
    rules = (
        Rule(layers=r"params\.conv\.kernel", use=None),
        Rule(layers=r"blocks\.\d+\.0", use=Quantize(weights=Int(bits=3, symmetric=False, per="tensor"))),
    )
    rounded = whit.jax.compress(params, Quantize(weights=Int(bits=5), rules=rules)).ledger.rounded()
    assert {name: one.target.bits for name, one in rounded.items()} == {
        "blocks.0.0": 3,
        "blocks.1.0": 3,
        "params.dense.kernel": 5,
    }


@pytest.mark.parametrize("step", [Prune(amount=0.5), Quantize()])
def test_a_rule_that_matches_nothing_is_an_error(params, step):
    plan = Plan(type(step)(**({"amount": 0.5} if isinstance(step, Prune) else {}), rules=(Rule(layers="kernel"),)))
    with pytest.raises(PlanError, match=r"the rule for kernel matches no layer; the layers are blocks\.0\.0, "):
        whit.jax.compress(params, plan)


def test_a_rule_for_something_that_is_no_layer_is_an_error(params):
    with pytest.raises(PlanError, match="matches no layer"):
        whit.jax.compress(params, Quantize(rules=(Rule(layers=r"params\.conv\.bias"),)))


ACTIVATIONS = Int(bits=8, per="tensor", symmetric=False)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FoldBatchNorm(), "step 2, FoldBatchNorm: .*drop the step"),
        (FoldParametrizations(), "step 2, FoldParametrizations: .*drop the step"),
        (Prune(amount=0.5, unit="channel"), r'step 2, Prune\(unit="channel"\): .*unit="weight"'),
        (Prune(amount=0.5, score=Taylor()), r"step 2, Prune\(score=Taylor\(\)\): .*such as Magnitude\(\)"),
        (Quantize(activations=ACTIVATIONS), r"step 2, Quantize\(activations=...\): .*activations=None"),
        (Quantize(weights=None, activations=ACTIVATIONS), r"step 2, Quantize\(activations=...\)"),
        (Quantize(rules=(Rule(layers=".*", use=Quantize(activations=ACTIVATIONS)),)), r"step 2, Quantize\(activations"),
        (Equalize(), "step 2, Equalize: it needs the network's graph"),
        (Quantize(method=LearnedRounding()), r"step 2, Quantize\(method=LearnedRounding\(...\)\): .*method=Nearest"),
        (Quantize(correct_biases=True), r"step 2, Quantize\(correct_biases=True\): .*correct_biases=False"),
        (Quantize(method=OptimalBrain()), r"step 2, Quantize\(method=OptimalBrain\(...\)\): .*method=Nearest"),
        (Finetune(epochs=1), "step 2, Finetune: .*your own loop"),
        (Finetune(epochs=1, distill=Distill()), "step 2, Finetune"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_steps_that_need_a_graph_are_refused(params, step, message):
    with pytest.raises(PlanError, match=message):
        whit.jax.compress(params, Plan(Prune(amount=0.1), step))


def test_weights_of_a_pytree_do_not_become_products(params):
    with pytest.raises(PlanError, match=r"step 1, Factorize: .*make two layers of one"):
        whit.jax.compress(params, Factorize(energy=0.9))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_weights_that_are_not_numbers_are_named_and_counted(params, value, dtype):
    params["blocks"][0] = (jnp.array([[1, value], [value, 2]], dtype), None)
    params["params"]["conv"]["bias"] = params["params"]["conv"]["bias"].at[0].set(value)
    message = r"^the network has NaN or infinite weights: blocks\.0\.0 \(2\), params\.conv\.bias \(1\)$"
    with pytest.raises(whit.WeightsError, match=message):
        whit.jax.compress(params, Quantize())


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float64, jnp.float8_e4m3fn])
def test_weights_in_other_precisions_are_pruned_and_not_quantized(dtype):
    other = np.asarray(np.random.default_rng(0).normal(size=(8, 4))).astype(dtype)
    params = {"a": normal(8, 4), "b": other if dtype is np.float64 else jnp.asarray(other)}
    result = whit.jax.compress(params, Plan(Prune(amount=0.5), Quantize()))
    reason = f"its weights are {np.dtype(dtype)}, not float32"
    assert result.skipped == (Skipped(step="quantize", layer="b", reason=reason),)
    mask = result.ledger.masks()["b"].mask
    assert result.params["b"].dtype == dtype
    np.testing.assert_array_equal(np.asarray(result.params["b"]), np.where(mask, other, other.dtype.type(0)))


def test_nothing_to_quantize_is_an_error():
    with pytest.raises(PlanError, match="nothing could be quantized; w: its weights are bfloat16, not float32"):
        whit.jax.compress({"w": jnp.ones((2, 2), jnp.bfloat16)}, Quantize())
    with pytest.raises(PlanError, match="nothing could be quantized; no layer was chosen"):
        whit.jax.compress({"w": jnp.ones((2, 2))}, Quantize(rules=(Rule(layers=".*"),)))


@pytest.mark.parametrize("params", [{}, {"b": np.ones(3, np.float32), "i": np.ones((2, 2), np.int32)}, "text", None])
def test_a_pytree_without_layers_is_an_error(params):
    with pytest.raises(whit.ModelError, match="there is no layer"):
        whit.jax.compress(params, Quantize())


def test_a_channel_axis_that_a_layer_has_not_is_an_error(params):
    with pytest.raises(whit.ModelError, match=r"blocks.0.0 has shape \(6, 4\), so it has no axis 3"):
        whit.jax.compress(params, Quantize(), channel_axis=3)


def test_two_leaves_of_one_name_are_an_error():
    params = {"a.b": jnp.ones((2, 2)), "a": {"b": jnp.ones((2, 2))}}
    with pytest.raises(whit.ModelError, match=r"several leaves of the pytree are called a\.b"):
        whit.jax.compress(params, Quantize())


def test_an_array_that_a_file_cannot_hold_is_an_error():
    with pytest.raises(whit.ModelError, match=r"z is complex64, which a \.whit cannot hold"):
        whit.jax.compress({"w": jnp.ones((2, 2)), "z": jnp.ones(2, jnp.complex64)}, Quantize())


def test_figures_are_those_of_the_arrays_and_the_file(params):
    result = whit.jax.compress(params, Plan(Prune(amount=0.5), Quantize()))
    layers, biases, integers = 3 * 3 * 2 * 8 + 8 * 6 + 2 * 6 * 4, 8 + 6, 1 + 6
    assert (result.before.parameters, result.before.nonzero) == (layers + biases,) * 2
    assert result.before.bytes == 4 * (layers + biases + integers)
    assert result.after.parameters == layers + biases
    floating = [leaf for name, leaf in whit.jax.pytree.arrays_of(result.params).items() if leaf.dtype == jnp.float32]
    assert result.after.nonzero == sum(int(jnp.count_nonzero(leaf)) for leaf in floating) <= layers // 2 + biases
    assert result.after.bytes == len(result.file)
    assert result.seconds > 0


def test_a_large_pytree_becomes_a_fraction_of_its_size():
    result = whit.jax.compress({"w": normal(256, 256)}, Plan(Prune(amount=0.8), Quantize(weights=Int(bits=4))))
    assert result.after.bytes < result.before.bytes / 10


def test_zero_sized_arrays_are_kept():
    result = whit.jax.compress({"w": jnp.ones((2, 2)), "empty": jnp.ones((0, 3))}, Plan(Prune(amount=0.5), Quantize()))
    assert result.params["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    ("imported", "absent"),
    [("whit", "jax"), ("whit", "torch"), ("whit.jax", "torch")],
)
def test_importing_whit_imports_no_framework_unasked(imported, absent):
    code = f"import {imported}, sys; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arrays_stay_on_the_devices_on_which_they_lie():
    code = """
import jax, jax.numpy as jnp, whit, whit.jax
sharding = jax.sharding.NamedSharding(jax.make_mesh((2,), ("x",)), jax.sharding.PartitionSpec("x"))
params = {"split": jax.device_put(jnp.arange(16.0).reshape(4, 4), sharding), "whole": jnp.ones((4, 4))}
result = whit.jax.compress(params, whit.Quantize())
for name, leaf in params.items():
    assert result.params[name].sharding == leaf.sharding
    assert result.params[name].committed == leaf.committed
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=False).returncode == 0


def test_64_bit_arrays_keep_their_values():
    values = {"wide": np.array([[0.1, 0.2]]), "count": np.array([2**64 - 1], np.uint64), "layer": np.ones((2, 2), "f4")}
    with jax.enable_x64(True):
        result = whit.jax.compress(jax.tree.map(jnp.asarray, values), Quantize())
        assert {name: leaf.dtype for name, leaf in result.params.items()} == {
            name: array.dtype for name, array in values.items()
        }
        for name in ("wide", "count"):
            np.testing.assert_array_equal(result.params[name], values[name])
