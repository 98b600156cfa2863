"""What leaves torch: the ledger's own codes, in files as small as they should be, that compute the same."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import decide, formats, store
from whit.data import Samples
from whit.formats import Format
from whit.ledger import Assigned, Ledger, Rounded
from whit.onnx.dequantized import by_dequantize_linear
from whit.runtime import Session, open_onnx
from whit.steps import Quantize
from whit.torch.network import TorchNetwork

BYTE = whit.Int(bits=8, symmetric=False, per="tensor")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(self.depth(F.relu6(self.inner(x))) + x)
        return self.head(F.max_pool2d(x, 2).flatten(1))


def rounded(step: Quantize) -> tuple[TorchNetwork, Ledger, Samples]:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)
    samples = Samples((x,), np.zeros(64, np.int64))
    net = TorchNetwork.of(Residual(), samples)
    ledger = Ledger().record(*net.foldable())
    net.apply_(ledger.structure)
    decisions, _ = decide.rounding(step, net, ledger, samples, "cross_entropy")
    net.apply_(decisions)
    ledger = ledger.record(*decisions)
    biases = decide.biases(net, ledger)
    net.apply_(biases)
    return net, ledger.record(*biases), samples


def exported(net: TorchNetwork, ledger: Ledger, folder: Path) -> onnx.ModelProto:
    net.export(folder / "model.onnx", ledger)
    return onnx.load(folder / "model.onnx")


def initializers(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {item.name: item for item in model.graph.initializer}


MAKING = {"DequantizeLinear", "Cast", "Gather", "Sub", "Mul", "Reshape"}


def made_of(name: str, model: onnx.ModelProto) -> str:
    """The tensor that nodes which only make weights make of an initializer."""
    for node in model.graph.node:
        if name in node.input and node.op_type in MAKING:
            return made_of(node.output[0], model)
    return name


WEIGHTS = [
    whit.Int(bits=8),
    whit.Int(bits=8, symmetric=False),
    whit.Int(bits=8, per="tensor", reduce_range=True),
    whit.Int(bits=5, symmetric=False, per="tensor"),
    whit.Int(bits=4),
    whit.Int(bits=3, symmetric=False, per="group", group_size=16),
    whit.Int(bits=2, per="group", group_size=10),
    whit.Int(bits=1),
    whit.Int(bits=1, symmetric=False, per="tensor"),
    whit.Int(bits=12, per="group", group_size=10),
    whit.Int(bits=16, symmetric=False),
]
FORMATS = [
    whit.Int(bits=16),
    formats.MXINT8,
    formats.FP16,
    formats.BF16,
    formats.FP8_E4M3,
    replace(formats.FP8_E5M2, per="tensor"),
    formats.FP6_E3M2,
    replace(formats.FP6_E2M3, per="tensor"),
    formats.FP4_E2M1,
    whit.Float(exponent=3, mantissa=4),
    formats.MXFP8_E4M3,
    formats.MXFP6_E3M2,
    formats.MXFP4,
    formats.NVFP4,
    whit.Codebook(k=13),
    whit.Codebook(k=64, per="channel"),
    whit.Codebook(k=256, per="group", group_size=10),
]


def less(codes: np.ndarray, zero: np.ndarray, decision: Rounded) -> np.ndarray:
    """Codes less the zero points of their groups."""
    columns = codes.shape[1]
    return codes - np.repeat(zero, decision.target.block(columns), axis=1)[:, :columns]


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_layers_of_few_bits_run_in_integers_without_their_zero_points(bits: int, tmp_path: Path) -> None:
    """ONNX Runtime's kernel for weights with zero points is twice as slow as the one for those without."""
    import onnxruntime

    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=bits, symmetric=False), activations=BYTE))
    found = initializers(exported(net, ledger, tmp_path))
    assert any(decision.zero_point.any() for decision in ledger.rounded().values())
    for name in ledger.rounded():
        assert found[f"{name}:codes"].data_type == TensorProto.INT8
        assert not numpy_helper.to_array(found[f"{name}:zero_point"]).any()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (ran["QLinearConv"], ran["Conv"]) == (3, 0)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("activations", [None, BYTE], ids=["weights", "activations"])
def test_the_file_holds_the_ledgers_codes_and_computes_the_same(
    weights: whit.Int, activations: whit.Int | None, tmp_path: Path
) -> None:
    if activations is not None and weights.bits == 8:
        # Full 8-bit products saturate the 16-bit sums of CPUs without VNNI, which CI's may be.
        weights = replace(weights, reduce_range=True)
    net, ledger, samples = rounded(Quantize(weights=weights, activations=activations))
    model = exported(net, ledger, tmp_path)
    found = initializers(model)
    for name, decision in ledger.rounded().items():
        assert name not in found
        codes, zero = (
            numpy_helper.to_array(found[f"{name}:{what}"]).astype(np.int32) for what in ("codes", "zero_point")
        )
        codes, zero = codes.reshape(decision.codes.shape), zero.reshape(decision.zero_point.shape)
        np.testing.assert_array_equal(less(codes, zero, decision), less(decision.codes, decision.zero_point, decision))
        if zero.any():  # there is no room for codes without it
            assert not weights.symmetric
            assert found[f"{name}:codes"].data_type in (TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16)
        assert decision.codes.any()
    outputs = open_onnx(tmp_path / "model.onnx")(*samples.inputs)
    # An activation may land on the neighbouring code where float sums differ in the last bit.
    atol = 1e-4 if activations is None else 0.05 * float(np.abs(outputs).max())
    np.testing.assert_allclose(net.predict(samples), outputs, atol=atol)
    assert np.abs(net.predict(samples) - outputs).mean() < 0.01 * np.abs(outputs).mean()


@pytest.mark.parametrize("target", FORMATS, ids=str)
def test_weights_of_every_format_are_the_ledgers_bit_for_bit_in_the_runtime(target: Format, tmp_path: Path) -> None:
    import onnxruntime

    net, ledger, samples = rounded(Quantize(weights=target))
    model = exported(net, ledger, tmp_path)
    made = [made_of(f"{name}:codes", model) for name in ledger.rounded()]
    for name, output in zip(ledger.rounded(), made, strict=True):
        assert name not in initializers(model)
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run([*made, "output"], {"input": samples.inputs[0]})
    for decision, weights in zip(ledger.rounded().values(), outputs, strict=False):
        np.testing.assert_array_equal(weights, decision.values())
        np.testing.assert_array_equal(weights, net.values()[decision.parameter])
    np.testing.assert_allclose(net.predict(samples), outputs[-1], atol=1e-4)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (formats.FP16, TensorProto.FLOAT16),
        (formats.BF16, TensorProto.BFLOAT16),
        (formats.FP8_E4M3, TensorProto.FLOAT8E4M3FN),
        (formats.MXFP8_E5M2, TensorProto.FLOAT8E5M2),
        (formats.FP6_E3M2, TensorProto.UINT8),
        (formats.NVFP4, TensorProto.UINT4),
        (whit.Codebook(k=16), TensorProto.UINT4),
        (whit.Codebook(k=17), TensorProto.UINT8),
    ],
    ids=str,
)
def test_codes_are_types_of_onnx_or_places_in_a_table(target: Format, expected: int, tmp_path: Path) -> None:
    net, ledger, _ = rounded(Quantize(weights=target))
    model = exported(net, ledger, tmp_path)
    assert initializers(model)["inner.weight:codes"].data_type == expected
    dtype = onnx.helper.tensor_dtype_to_np_dtype(expected)
    if expected not in (TensorProto.UINT8, TensorProto.UINT4):
        stored = numpy_helper.to_array(initializers(model)["inner.weight:codes"])
        assert stored.dtype == dtype
        decision = ledger.rounded()["inner.weight"]
        levels = target.levels()[decision.codes - target.low]
        np.testing.assert_array_equal(stored.astype(np.float32).reshape(levels.shape), levels)


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (whit.Int(bits=16), whit.Int(bits=16, per="tensor")),
        (whit.Int(bits=8), whit.Int(bits=12, symmetric=False, per="tensor")),
        (whit.Int(bits=16), whit.Int(bits=16, symmetric=False, per="tensor")),
    ],
    ids=str,
)
def test_activations_of_up_to_16_bits_compute_the_same(weights: Format, activations: whit.Int, tmp_path: Path) -> None:
    net, ledger, samples = rounded(Quantize(weights=weights, activations=activations))
    exported(net, ledger, tmp_path)
    assert ledger.activations()
    assert not ledger.biases()  # no runtime adds them to integers of more than 8 bits
    np.testing.assert_allclose(net.predict(samples), open_onnx(tmp_path / "model.onnx")(*samples.inputs), atol=1e-3)


@pytest.mark.parametrize(
    ("bits", "activations", "expected"),
    [
        (8, None, TensorProto.INT8),
        (4, None, TensorProto.INT4),
        (2, None, TensorProto.INT4),
        (4, BYTE, TensorProto.INT8),
    ],
)
def test_codes_take_four_bits_where_a_runtime_reads_them_as_such(
    bits: int, activations: whit.Int | None, expected: int, tmp_path: Path
) -> None:
    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=bits), activations=activations))
    model = exported(net, ledger, tmp_path)
    assert initializers(model)["inner.weight:codes"].data_type == expected


@pytest.mark.parametrize("alone", [None, Quantize(weights=formats.FP16)], ids=str)
def test_the_runtime_leaves_floating_point_weights_between_rounded_activations_alone(
    alone: Quantize | None, tmp_path: Path
) -> None:
    rules = (whit.Rule(layers="inner", use=alone),)
    safe = whit.Int(bits=8, reduce_range=True)
    net, ledger, samples = rounded(Quantize(weights=safe, activations=BYTE, rules=rules))
    exported(net, ledger, tmp_path)
    outputs = open_onnx(tmp_path / "model.onnx")(*samples.inputs)
    # Rounded to int8 on the runtime's own account they would differ by a thousand times this.
    assert np.abs(net.predict(samples) - outputs).mean() < 1e-5


def test_biases_are_int32_in_the_scale_of_input_times_weight(tmp_path: Path) -> None:
    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=8), activations=BYTE))
    model = exported(net, ledger, tmp_path)
    found = initializers(model)
    codes = numpy_helper.to_array(found["inner.bias:int32"])
    scale = numpy_helper.to_array(found["inner.bias:scale"])
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes.astype(np.float32) * scale, net.values()["inner.bias"])
    source = ledger.activations()[ledger.biases()["inner.bias"].tensor]
    assert source.tensor == "1.relu"
    np.testing.assert_allclose(scale, source.scale * ledger.rounded()["inner.weight"].scale[:, 0], rtol=1e-6)


def test_the_graph_holds_nothing_that_a_runtime_does_not_need(tmp_path: Path) -> None:
    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=8)))
    model = exported(net, ledger, tmp_path)
    onnx.checker.check_model(model, full_check=True)
    assert not model.producer_name
    nodes = list(model.graph.node)
    assert not [node.name for node in nodes if node.name]
    weights = [item.name for item in model.graph.initializer if item.name.partition(":")[0] in ledger.given()]
    assert "inner.weight:codes" in weights
    others = [item for item in model.graph.initializer if item.name not in weights]
    contents = [(item.data_type, tuple(item.dims), numpy_helper.to_array(item).tobytes()) for item in others]
    assert len(set(contents)) == len(contents)
    made = [name for node in nodes for name in node.output if name != "output"]
    assert len(set(made)) == len(made)
    assert max(map(len, made)) <= 2
    for place, node in enumerate(nodes):
        if node.op_type == "DequantizeLinear":
            assert node.output[0] in nodes[place + 1].input  # it stands before what reads it


def kinds_run(folder: Path) -> list[str]:
    """The operations that ONNX Runtime, as anyone opens it, makes of an exported file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize(
    "target",
    [
        whit.Int(bits=8),
        whit.Int(bits=4, symmetric=False, per="tensor"),
        whit.Int(bits=4, per="group", group_size=16),
        whit.Int(bits=16),
    ],
    ids=str,
)
def test_weights_of_layers_in_floating_point_are_made_once(target: whit.Int, tmp_path: Path) -> None:
    net, ledger, samples = rounded(Quantize(weights=target))
    assert "DequantizeLinear" not in [node.op_type for node in exported(net, ledger, tmp_path).graph.node]
    inside = set(kinds_run(tmp_path))
    assert inside & {"Conv", "FusedConv"}
    assert not inside & {"DequantizeLinear", "Cast", "Sub", "Mul", "MatMulNBits"}
    given = (tmp_path / "model.onnx").read_bytes()
    turned = onnx.load_model_from_string(by_dequantize_linear(given, ledger))
    assert [node.op_type for node in turned.graph.node].count("DequantizeLinear") == len(ledger.rounded())
    expected, found = (
        Session(content, threads=1, name="")(samples.inputs[0]) for content in (given, turned.SerializeToString())
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_few_bits_are_bytes_where_integers_are_multiplied_whatever_the_rank(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(8, 5, 16)).astype(np.float32)
    samples = Samples((x,), np.zeros(8, np.int64))
    for activations, kind in ((BYTE, TensorProto.INT8), (None, TensorProto.INT4)):
        net = TorchNetwork.of(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), samples)
        decisions, _ = decide.rounding(
            Quantize(weights=whit.Int(bits=4), activations=activations), net, Ledger(), samples, "mean_squared_error"
        )
        net.apply_(decisions)
        found = initializers(exported(net, Ledger().record(*decisions), tmp_path))
        assert {found[f"{name}.weight:codes"].data_type for name in "02"} == {kind}


def test_every_layer_runs_in_integers_in_onnx_runtime(tmp_path: Path) -> None:
    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=8), activations=BYTE))
    exported(net, ledger, tmp_path)
    kinds = kinds_run(tmp_path)
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QLinearAdd") == 1
    assert "QGemm" in kinds
    assert not {"Conv", "Gemm", "Add", "MatMul"} & set(kinds)


@pytest.mark.parametrize("activations", [None, BYTE], ids=["weights", "activations"])
@pytest.mark.parametrize(
    "weights",
    [
        whit.Int(bits=8),
        whit.Int(bits=4, per="group", group_size=16),
        whit.Int(bits=16),
        formats.BF16,
        formats.MXFP8_E4M3,
        formats.NVFP4,
        whit.Codebook(k=13, per="channel"),
    ],
    ids=str,
)
def test_the_whit_file_runs_bit_for_bit_as_the_onnx_file_does(
    weights: Format, activations: whit.Int | None, tmp_path: Path
) -> None:
    if activations is not None and not isinstance(weights, whit.Int):
        pytest.skip("a plan has no such pair")
    net, ledger, samples = rounded(Quantize(weights=weights, activations=activations))
    exported(net, ledger, tmp_path)
    rest = {name: np.array(x) for name, x in net.values().items() if name not in ledger.given()}
    whole = ledger.record(*(Assigned(parameter=name, values=x) for name, x in rest.items()))
    (tmp_path / "model.whit").write_bytes(store.encode(whole, (tmp_path / "model.onnx").read_bytes(), {}))
    from_whit = whit.runtime.load(tmp_path / "model.whit")(*samples.inputs)
    np.testing.assert_array_equal(from_whit, open_onnx(tmp_path / "model.onnx")(*samples.inputs))


def test_the_batch_size_is_free_and_nothing_of_the_exporter_is_left(tmp_path: Path) -> None:
    net, ledger, _ = rounded(Quantize(weights=whit.Int(bits=8)))
    model = exported(net, ledger, tmp_path)
    session = open_onnx(tmp_path / "model.onnx")
    for batch in (1, 3, 17):
        assert session(np.zeros((batch, 3, 8, 8), np.float32)).shape == (batch, 5)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path.cwd()) not in str(model)


def test_rounding_before_folding_is_refused_with_what_to_do() -> None:
    samples = Samples((np.zeros((2, 3, 8, 8), np.float32),), np.zeros(2, np.int64))
    with pytest.raises(
        whit.PlanError, match=r"stem is followed by a batch normalisation.*FoldBatchNorm before Quantize"
    ):
        decide.rounding(Quantize(), TorchNetwork.of(Residual(), samples), Ledger(), samples, "cross_entropy")


def test_a_module_that_returns_more_than_a_tensor_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    samples = Samples((np.zeros((2, 3), np.float32),), np.zeros(2, np.int64))
    with pytest.raises(whit.ModelError, match="returns tuple; whit reads networks that return one tensor"):
        TorchNetwork.of(Two(), samples)


class Biased(nn.Module):
    """Attention with a bias that is learned for each distance between two places."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(8, 36), nn.Linear(12, 5)
        self.distances = nn.Embedding(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).reshape(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        places = torch.arange(x.shape[1])
        bias = self.distances((places[:, None] - places).abs()).permute(2, 0, 1)[None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.project(mixed.transpose(1, 2).reshape(*x.shape[:2], 12)).mean(1)


def test_attention_with_a_learned_bias_is_exported_with_a_free_batch_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(3, 12, 8)).astype(np.float32)
    samples = Samples((x,), np.zeros(3, np.int64))
    net = TorchNetwork.of(Biased(), samples)
    exported(net, Ledger(), tmp_path)
    np.testing.assert_allclose(open_onnx(tmp_path / "model.onnx")(x), net.predict(samples), atol=1e-5)


class Windowed(nn.Module):
    """Attention within windows, with an axis each for batch, window and head, or one for all three."""

    def __init__(self, *, joined: bool) -> None:
        super().__init__()
        self.qkv, self.joined = nn.Linear(8, 36), joined

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).reshape(x.shape[0], 3, 4, 3, 3, 4).permute(3, 0, 1, 4, 2, 5)
        query, key, value = qkv.flatten(1, 3) if self.joined else qkv
        return F.scaled_dot_product_attention(query, key, value).reshape(x.shape[0], -1)


@pytest.mark.parametrize("joined", [False, True])
def test_attention_may_have_any_axes_before_words_and_features(joined: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(3, 12, 8)).astype(np.float32)
    net = TorchNetwork.of(Windowed(joined=joined), Samples((x,), np.zeros(3, np.int64)))
    exported(net, Ledger(), tmp_path)
    found = open_onnx(tmp_path / "model.onnx")(x)
    np.testing.assert_allclose(found, net.predict(Samples((x,), np.zeros(3, np.int64))), atol=1e-5)


class Seeing(nn.Module):
    """Patches of images, one layer of attention as vision transformers have it, and what they are normalised by."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1))
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.qkv, self.head = nn.Linear(12, 36), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x - self.mean).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(x).view(x.shape[0], -1, 3, 3, 4).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.head(x.mean(dim=1))


def test_nothing_of_shapes_is_left_to_compute_and_a_buffer_may_be_named_as_a_value_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    samples = Samples((x,), np.zeros(3, np.int64))
    net = TorchNetwork.of(Seeing(), samples)
    model = exported(net, Ledger(), tmp_path)
    assert "mean" in initializers(model)  # torch calls the mean over words so too
    np.testing.assert_allclose(open_onnx(tmp_path / "model.onnx")(x), net.predict(samples), atol=1e-5)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not {"Shape", "Constant", "CastLike", "Expand", "Identity"} & kinds.keys()
    # Patches into a row, heads apart, heads together; queries, keys and values are cut out of one product; the keys are
    # transposed, the queries scaled; words before channels, heads before words and back, and one weight the other way.
    assert {kind: kinds[kind] for kind in ("Reshape", "Slice", "Mul", "MatMul", "Transpose")} == {
        "Reshape": 3,
        "Slice": 3,
        "Mul": 1,
        "MatMul": 3,
        "Transpose": 5,
    }


class OfOneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(len(x), 6))


def test_a_module_that_makes_a_number_of_the_batch_size_is_refused(tmp_path: Path) -> None:
    samples = Samples((np.zeros((4, 2, 3), np.float32),), np.zeros(4, np.int64))
    net = TorchNetwork.of(OfOneSize(), samples)
    with pytest.raises(whit.ModelError, match=r"OfOneSize exports for batches of 2 alone.*len\(x\)"):
        net.export(tmp_path / "model.onnx", Ledger())
