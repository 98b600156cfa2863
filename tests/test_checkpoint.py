"""Checkpoints shard by shard: the same codes as at once, whoever makes them and however often they were stopped."""

import json
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import whit
from whit import NM, Int, Plan, Processes, Prune, Quantize, Rule
from whit.checkpoint import INDEX
from whit.progress import Progress
from whit.store import read
from whit.weights_only import WeightsRun

FOUR = Quantize(weights=Int(bits=4, per="group", group_size=16))
PLAN = Plan(Prune(amount=0.5, unit=NM(n=2, m=4)), FOUR)
SHARD = 4 * 3000
"""Bytes: room for one of the two larger layers."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(40, 64), nn.Linear(64, 40), nn.LayerNorm(40), nn.Linear(40, 10))


@pytest.fixture
def values():
    """Of the network, whose largest layers have 2,560 values; in bfloat16 but for the normalisation."""
    found = {name: tensor.numpy() for name, tensor in network().state_dict().items()}
    return {name: x if name.startswith("2.") else x.astype(ml_dtypes.bfloat16) for name, x in found.items()}


@pytest.fixture
def checkpoint(values, tmp_path):
    """In two files."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    names = list(values)
    for place, some in enumerate((names[:3], names[3:])):
        save_file({name: values[name] for name in some}, folder / f"model-{place}.safetensors")
    return folder


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_what_a_plan_decides_on_each_tensor(checkpoint, values, tmp_path):
    result = whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out", shard_bytes=SHARD)
    assert [shard.file for shard in result.shards] == [
        "weights-1-of-3.whit",
        "weights-2-of-3.whit",
        "weights-3-of-3.whit",
    ]
    assert result.parameters == sum(x.size for x in values.values())
    assert result.bytes == sum((tmp_path / "out" / shard.file).stat().st_size for shard in result.shards)
    assert result.bytes_before == sum(path.stat().st_size for path in checkpoint.iterdir())
    loaded = whit.load(tmp_path / "out", into=network()).state_dict()
    for name, x in values.items():
        expected = x.astype(np.float32)
        if x.ndim == 2:
            run = WeightsRun({name: expected}, 0)
            for step in PLAN.steps:
                run.take(step)
            expected = run.values[name]
            assert np.unique(expected).size < np.unique(x).size
        np.testing.assert_array_equal(loaded[name].numpy(), expected)


def test_a_single_file_is_a_checkpoint_too(values, tmp_path):
    save_file(values, tmp_path / "model.safetensors")
    result = whit.compress_checkpoint(tmp_path / "model.safetensors", FOUR, tmp_path / "out")
    assert len(result.shards) == 1
    assert result.parameters == sum(x.size for x in values.values())


@pytest.mark.parametrize("profile", ["fast", "small"])
def test_workers_make_the_same_bytes(checkpoint, tmp_path, profile):
    for name, workers in (("alone", None), ("two", Processes(2))):
        whit.compress_checkpoint(checkpoint, PLAN, tmp_path / name, shard_bytes=SHARD, workers=workers, profile=profile)
    assert bytes_of(tmp_path / "alone") == bytes_of(tmp_path / "two")


class Stops(Progress):
    """Raises after some shards."""

    def __init__(self, after):
        self.left = after

    @contextmanager
    def bar(self, what, total):
        yield self

    def advance(self, steps=1, note=""):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_was_stopped_goes_on_where_it_was(checkpoint, tmp_path, after):
    whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "whole", shard_bytes=SHARD)
    with pytest.raises(KeyboardInterrupt):
        whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out", shard_bytes=SHARD, progress=Stops(after))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(kept) == after
    with pytest.raises(whit.FileError, match="holds no compressed checkpoint"):
        whit.load(tmp_path / "out", into=network())
    whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out", shard_bytes=SHARD)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_a_shard_that_is_damaged_is_made_again(checkpoint, tmp_path):
    out = tmp_path / "out"
    whit.compress_checkpoint(checkpoint, PLAN, out, shard_bytes=SHARD)
    expected = bytes_of(out)
    (out / "weights-2-of-3.whit").write_bytes(expected["weights-2-of-3.whit"][:-5])
    whit.compress_checkpoint(checkpoint, PLAN, out, shard_bytes=SHARD)
    assert bytes_of(out) == expected


def test_what_could_not_be_quantized_is_told_again_when_shards_are_there_already(values, tmp_path):
    save_file(values, tmp_path / "model.safetensors")
    plan = Quantize(rules=(Rule(layers=r"3\.weight"),))
    first, second = (whit.compress_checkpoint(tmp_path / "model.safetensors", plan, tmp_path / "out") for _ in range(2))
    assert first.shards == second.shards
    np.testing.assert_array_equal(
        whit.load(tmp_path / "out", into=network())[3].weight.detach().numpy(), values["3.weight"].astype(np.float32)
    )


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (Prune(amount=0.5, scope="global"), whit.PlanError, "it compares layers, and a checkpoint is read one after"),
        (Quantize(rules=(Rule(layers="head"),)), whit.PlanError, "the rule for head matches no layer"),
        (Quantize(activations=Int(bits=8, per="tensor")), whit.PlanError, "quantize weights alone"),
        (Quantize(bits=whit.Mixed(choices=(4, 8), bytes=1000)), whit.PlanError, "say how many bits layers have"),
        (whit.Finetune(epochs=1), whit.PlanError, "here are only its weights; drop the step"),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, str) else "",
)
def test_steps_that_need_more_than_a_layer_are_refused(checkpoint, tmp_path, plan, error, message):
    with pytest.raises(error, match=message):
        whit.compress_checkpoint(checkpoint, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(whit.OutputError, match=r"holds thesis\.txt, which this call does not write"):
        whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out")


def test_shards_of_another_plan_are_left_alone(checkpoint, tmp_path):
    whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    with pytest.raises(whit.OutputError, match="was made by another plan or from other files"):
        whit.compress_checkpoint(checkpoint, FOUR, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == before


def test_bad_checkpoints_are_refused_by_name(checkpoint, values, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(whit.FileError, match=r"holds no \.safetensors files"):
        whit.compress_checkpoint(tmp_path, FOUR, out)
    save_file({"0.weight": values["0.weight"]}, checkpoint / "twice.safetensors")
    with pytest.raises(whit.ModelError, match=r"several files have a tensor 0\.weight"):
        whit.compress_checkpoint(checkpoint, FOUR, out)
    (checkpoint / "twice.safetensors").write_bytes(b"no header at all")
    with pytest.raises(whit.FileError, match=r"twice\.safetensors cannot be read as safetensors"):
        whit.compress_checkpoint(checkpoint, FOUR, out)
    save_file({"bias": np.ones(3, np.float32)}, tmp_path / "biases.safetensors")
    with pytest.raises(whit.ModelError, match="has no layer"):
        whit.compress_checkpoint(tmp_path / "biases.safetensors", FOUR, out)
    save_file({"a": np.full((4, 4), np.nan, np.float32)}, tmp_path / "nan.safetensors")
    with pytest.raises(whit.WeightsError, match=r"NaN or infinite weights: a \(16\)"):
        whit.compress_checkpoint(tmp_path / "nan.safetensors", FOUR, out)


@pytest.mark.parametrize(
    "index", [b"", b"[]", b'{"format": "whit shards 1", "shards": ["../../etc/passwd"]}', b'{"format": "another"}']
)
def test_an_index_that_is_none_is_refused(tmp_path, index):
    (tmp_path / INDEX).write_bytes(index)
    with pytest.raises(whit.FileError, match=r"cannot read|is not the index of a compressed checkpoint"):
        whit.load(tmp_path, into=network())


def test_the_index_says_by_which_plan_and_each_shard_of_what(checkpoint, tmp_path):
    whit.compress_checkpoint(checkpoint, PLAN, tmp_path / "out")
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert whit.toml.loads(index["plan"]) == PLAN
    assert [read(tmp_path / "out" / name).about["profile"] for name in index["shards"]] == ["fast"]
