"""Saved and loaded pytrees are the compressed pytrees, bit for bit."""

import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whit
import whit.jax
from whit import Int, Plan, Prune, Quantize
from whit.formats import BF16, FP8_E5M2, MXFP4, NVFP4, Codebook
from whit.jax.replay import replay
from whit.ledger import Assigned, Folded, Ledger


class Dense(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def example():
    rng = np.random.default_rng(0)
    return {
        "dense": Dense(jnp.asarray(rng.normal(size=(8, 6)), jnp.float32), jnp.ones(6)),
        "half": [jnp.asarray(rng.normal(size=(3, 2)), jnp.bfloat16), (jnp.asarray(rng.normal(size=3), jnp.float16),)],
        "key": jnp.array([1, 2**32 - 1], jnp.uint32),
        "numpy": rng.normal(size=(2, 3, 4)),
        "name": "net",
    }


def fresh(tree):
    """The same structure, with zero in every array."""
    return jax.tree.map(lambda leaf: (leaf * 0).astype(leaf.dtype) if hasattr(leaf, "dtype") else leaf, tree)


def bits(tree):
    return [
        (str(x.dtype), x.shape, type(x), np.asarray(x).tobytes()) if hasattr(x, "dtype") else x
        for x in jax.tree.leaves(tree)
    ]


@pytest.fixture
def saved(tmp_path):
    result = whit.jax.compress(example(), Plan(Prune(amount=0.3), Quantize(weights=Int(bits=5, symmetric=False))))
    whit.save(result, tmp_path / "params.whit")
    return result, tmp_path / "params.whit"


@pytest.mark.parametrize("target", [Int(bits=1), MXFP4, NVFP4, FP8_E5M2, BF16, Codebook(k=3)], ids=str)
def test_weights_of_every_format_come_back_bit_for_bit(tmp_path, target):
    result = whit.jax.compress(example(), Quantize(weights=target))
    whit.save(result, tmp_path / "params.whit")
    loaded = whit.load(tmp_path / "params.whit", into=fresh(example()))
    assert bits(loaded) == bits(result.params)
    assert np.asarray(result.params["dense"].kernel).any()


def test_a_saved_pytree_comes_back_bit_for_bit(saved):
    result, path = saved
    into = fresh(example())
    before = bits(into)
    loaded = whit.load(path, into=into)
    assert jax.tree.structure(loaded) == jax.tree.structure(result.params)
    assert bits(loaded) == bits(result.params)
    assert bits(into) == before
    assert path.stat().st_size == result.after.bytes


def test_a_pytree_of_shapes_can_be_loaded_into(saved):
    result, path = saved
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf, example()
    )
    assert bits(whit.load(path, into=shapes)) == bits(result.params)


def test_the_ledger_alone_rebuilds_the_pytree(saved):
    result, _ = saved
    assert bits(replay(result.ledger, fresh(example()))) == bits(result.params)


DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.int8, np.uint32, np.bool_]


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape) * draw(
        st.sampled_from([0, 1e-3, 1, 50])
    )
    return (np.abs(values) if dtype == np.uint32 else values).astype(dtype)


trees = st.recursive(
    arrays() | st.sampled_from([None, "text", 1.5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.builds(Dense, inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(tree=trees, data=st.data())
def test_any_pytree_comes_back_bit_for_bit(tree, data, tmp_path_factory):
    per = data.draw(st.sampled_from(["tensor", "channel", "group"]))
    target = Int(
        bits=data.draw(st.integers(2, 8)),
        symmetric=data.draw(st.booleans()),
        per=per,
        group_size=data.draw(st.integers(1, 6)) if per == "group" else None,
    )
    steps = (Prune(amount=data.draw(st.floats(0, 0.99))), Quantize(weights=target))
    params = {"tree": tree, "layer": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}
    result = whit.jax.compress(params, Plan(*steps), channel_axis=data.draw(st.sampled_from([-1, 0, 1])))
    path = tmp_path_factory.mktemp("trees") / "tree.whit"
    whit.save(result, path)
    loaded = whit.load(path, into=fresh(params))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    assert bits(loaded) == bits(result.params)


def test_missing_and_surplus_names_are_both_listed(saved):
    _, path = saved
    into = example()
    into["other"] = into.pop("numpy")
    message = r"holds another network: it lacks other; it has numpy that the network has not"
    with pytest.raises(whit.WeightsError, match=message):
        whit.load(path, into=into)
    into.pop("other")
    with pytest.raises(whit.WeightsError, match="it has numpy that the network has not"):
        whit.load(path, into=into)


def test_another_shape_is_an_error(saved):
    _, path = saved
    into = example() | {"key": jnp.zeros(3, jnp.uint32)}
    with pytest.raises(whit.WeightsError, match=re.escape("key has shape (3,) in this pytree, (2,) in the file")):
        whit.load(path, into=into)


def test_a_dtype_that_would_change_the_values_is_an_error(saved):
    _, path = saved
    into = example()
    into["dense"] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), into["dense"])
    with pytest.raises(whit.WeightsError, match=r"dense\.kernel is bfloat16 in this pytree, which cannot hold"):
        whit.load(path, into=into)


def test_decisions_that_need_a_graph_are_refused():
    ledger = Ledger().record(Folded(batch_norm="bn", into="w"), Assigned(parameter="w", values=np.ones(2)))
    with pytest.raises(whit.WeightsError, match=r"decisions that a pytree cannot take \(Folded\)"):
        replay(ledger, {"w": jnp.ones(2)})


@pytest.mark.parametrize("into", [torch.nn.Linear, None, 3])
def test_something_without_arrays_is_an_error(saved, into):
    _, path = saved
    with pytest.raises(whit.ModelError, match=r"whit.load takes a torch.nn.Module, an .onnx file or a JAX pytree"):
        whit.load(path, into=into)


def test_a_file_that_is_no_onnx_is_an_error(saved):
    _, path = saved
    with pytest.raises(whit.ModelError, match=r"model is not read: whit opens .onnx files"):
        whit.load(path, into="model")


def test_loading_into_a_module_still_works_with_jax_imported(tmp_path):
    module = torch.nn.Linear(3, 2)
    params = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    result = whit.jax.compress(params, Quantize(weights=Int(bits=2)), channel_axis=0)
    whit.save(result, tmp_path / "linear.whit")
    loaded = whit.load(tmp_path / "linear.whit", into=torch.nn.Linear(3, 2))
    assert isinstance(loaded, torch.nn.Linear)
    np.testing.assert_array_equal(loaded.weight.detach().numpy(), result.params["weight"])


def test_the_file_has_no_graph_to_run(saved):
    _, path = saved
    with pytest.raises(whit.FileError, match="holds no graph, only decisions on parameters"):
        whit.runtime.load(path)


def test_loading_does_not_import_jax_for_the_caller(saved):
    _, path = saved
    code = (
        "import sys, whit, numpy as np\n"
        f"try: whit.load({str(path)!r}, into={{'w': np.ones(2)}})\n"
        "except whit.ModelError: sys.exit('jax' in sys.modules or 'torch' in sys.modules)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
