import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from whit import runtime
from whit.cli import app

COMPRESS = ["compress", "tiny_network:make", "--data", "data.npz", "--plan", "plan.toml", "--layout", "NHWC"]
WHIT = Path(sys.executable).with_name("whit")


def whit(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(one) for one in arguments])


def fails(outcome: Result, *parts: str, code: int = 1) -> None:
    """One message on stderr that holds every part, nothing on stdout."""
    assert outcome.exit_code == code, outcome.output
    assert outcome.stdout == ""
    for part in parts:
        assert part in outcome.stderr
    assert "Traceback" not in outcome.stderr


# What comes out


def test_compress_writes_the_four_files_and_prints_the_table(tiny_run: tuple[Path, str]) -> None:
    folder, printed = tiny_run
    assert {"model.whit", "model.onnx", "plan.toml", "result.json"} < {item.name for item in folder.iterdir()}
    for word in ("before", "after", "accuracy", "bytes on disk", "MACs", "fewer", "Skipped by prune: head"):
        assert word in printed
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_result_json_holds_every_figure(tiny_run: tuple[Path, str]) -> None:
    folder = tiny_run[0]
    facts = json.loads((folder / "result.json").read_text())
    assert {"metric", "versions", "machine", "seconds", "skipped", "parity"} <= facts.keys()
    for key in ("before", "after"):
        figures = facts[key]
        assert figures.keys() == {
            *("parameters", "nonzero", "bytes", "bytes_onnx", "memory", "macs", "latency_ms", "quality"),
        }
        assert figures["latency_ms"]["low"] <= figures["latency_ms"]["median"] <= figures["latency_ms"]["high"]
    assert facts["parity"].keys() == {"max_abs", "mean_abs", "agreement"}
    assert facts["after"]["bytes"] == (folder / "model.whit").stat().st_size
    assert facts["after"]["bytes_onnx"] == (folder / "model.onnx").stat().st_size
    assert facts["before"]["bytes"] == (folder / "original.onnx").stat().st_size
    # 4 of 8 channels: conv 4 * 27 + 4, head 4 * 4 + 4; a quarter of 108 and of 16 weights is zero.
    assert facts["after"]["parameters"] == 132
    assert facts["after"]["nonzero"] == 132 - 27 - 4
    assert [one["layer"] for one in facts["skipped"]] == ["head"]


def test_inspect_prints_what_the_file_holds(tiny_run: tuple[Path, str]) -> None:
    outcome = whit("inspect", tiny_run[0] / "model.whit")
    assert outcome.exit_code == 0, outcome.output
    for words in ("conv.weight", "4 x 3 x 3 x 3", "int8 per channel", "25.0%", "norm into conv", "cut with conv"):
        assert words in outcome.stdout


@pytest.mark.usefixtures("in_tiny_folder")
def test_inspect_groups_names_what_is_cut_together_and_what_is_not() -> None:
    found = json.loads(
        whit("inspect", "tiny_network:make", "--groups", "--data", "tiny_network:make_arrays", "--json").stdout
    )
    (group,) = found["groups"]
    assert (group["name"], group["units"]) == ("conv", 8)
    assert {"parameter": "head.weight", "axis": 1, "each": 1} in group["axes"]
    assert found["frozen"] == [{"layer": "head", "reason": "its channels are the output of the network"}]
    printed = whit("inspect", "tiny_network:make", "--groups", "--data", "tiny_network:make_arrays").stdout
    assert "stays: head: its channels are the output of the network" in printed


@pytest.mark.usefixtures("in_tiny_folder")
def test_inspect_groups_needs_samples() -> None:
    fails(whit("inspect", "tiny_network:make", "--groups"), "give samples with --data")


def test_inspect_json_is_json_and_nothing_else(tiny_run: tuple[Path, str]) -> None:
    path = tiny_run[0] / "model.whit"
    found = json.loads(whit("inspect", path, "--json").stdout)
    assert found["bytes"] == path.stat().st_size
    assert found["format_version"] == 1
    assert 'kind = "prune"' in found["about"]["plan"]
    tensors = {one["name"]: one for one in found["tensors"]}
    assert tensors["conv.weight"]["shape"] == [4, 3, 3, 3]
    assert tensors["conv.weight"]["stored"] == "int8 per channel"
    assert tensors["conv.weight"]["sparsity"] == pytest.approx(0.25)
    assert sum(one["bytes"] for one in found["tensors"]) + found["graph_bytes"] < found["bytes"]
    assert found["structure"]["folded"] == [{"batch_norm": "norm", "into": "conv"}]
    axes = {(one["parameter"], one["axis"]): one["size"] for one in found["structure"]["kept"][0]["axes"]}
    assert axes == {("conv.weight", 0): 4, ("conv.bias", 0): 4, ("head.weight", 1): 4}
    assert {one["stored"] for one in found["activations"]} == {"uint8 per tensor"}


def test_export_writes_the_onnx_of_the_run(tiny_run: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "exported.onnx"
    outcome = whit("export", tiny_run[0] / "model.whit", "--to", "onnx", "--out", out)
    assert outcome.exit_code == 0, outcome.output
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    expected = runtime.open_onnx(tiny_run[0] / "model.onnx")(x)
    np.testing.assert_array_equal(runtime.open_onnx(out)(x), expected)


def test_export_for_another_runtime_compares_it_on_data(
    tiny_run: tuple[Path, str], in_tiny_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="pip install 'whit[openvino]'")
    model, out = tiny_run[0] / "model.whit", tmp_path / "new" / "exported.xml"
    fails(whit("export", model, "--to", "openvino", "--out", out), "give samples")
    options = ["--scale", "0.0039", "--mean", "0.5,0.5,0.5", "--layout", "NHWC"]
    outcome = whit("export", model, "--to", "openvino", "--out", out, "--data", "data.npz", *options)
    assert outcome.exit_code == 0, outcome.output
    assert out.exists()
    assert out.with_suffix(".bin").exists()
    assert "openvino and the network agree on" in outcome.stdout


def test_export_replaces_only_with_overwrite_and_never_its_own_source(
    tiny_run: tuple[Path, str], tmp_path: Path
) -> None:
    model, out = tiny_run[0] / "model.whit", tmp_path / "there.onnx"
    out.write_text("mine")
    fails(whit("export", model, "--to", "onnx", "--out", out), "exists already", "--overwrite")
    assert out.read_text() == "mine"
    fails(whit("export", model, "--to", "onnx", "--out", model, "--overwrite"), "is the file to export")
    assert whit("export", model, "--to", "onnx", "--out", out, "--overwrite").exit_code == 0
    assert out.stat().st_size > 1000


def test_bench_measures_the_original_where_it_was_kept(tiny_run: tuple[Path, str]) -> None:
    found = json.loads(whit("bench", tiny_run[0], "--seconds", "0.1", "--json").stdout)
    assert found["latency_ms"].keys() == {"model.whit", "model.onnx", "original.onnx"}
    assert found["recorded_before"] is None
    assert found["threads"] == 1


def test_bench_compares_with_no_time_of_another_runtime(tiny_run: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(tiny_run[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "original.onnx").unlink()
    facts = json.loads((tmp_path / "result.json").read_text()) | {"runtime": "openvino", "batch": 3}
    (tmp_path / "result.json").write_text(json.dumps(facts))
    shown = whit("bench", tmp_path, "--seconds", "0.1").stdout
    assert "3 samples, 1 thread(s)" in shown
    assert "measured the original in another runtime" in shown
    assert "faster" not in shown
    assert "slower" not in shown


def test_bench_says_that_the_original_is_recorded_where_it_was_not_kept(
    tiny_run: tuple[Path, str], tmp_path: Path
) -> None:
    for name in ("model.whit", "model.onnx", "result.json"):
        (tmp_path / name).write_bytes((tiny_run[0] / name).read_bytes())
    outcome = whit("bench", tmp_path, "--seconds", "0.1")
    assert outcome.exit_code == 0, outcome.output
    assert "original (recorded)" in outcome.stdout
    assert "--keep-original" in outcome.stdout


def test_demo_runs_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from types import SimpleNamespace

    seen: list[Path] = []
    stand_in = SimpleNamespace(run=lambda folder, progress: seen.append(folder))
    monkeypatch.setitem(sys.modules, "whit.demo.run", stand_in)
    assert whit("demo", "--folder", tmp_path).exit_code == 0
    assert whit("demo").exit_code == 0
    assert seen == [tmp_path, Path("whit-demo")]


# Starting up


@pytest.mark.parametrize("command", [["--help"], ["inspect"], ["export", "--to", "onnx", "--overwrite"]])
def test_commands_that_need_no_framework_import_none(tiny_run: tuple[Path, str], command: list[str]) -> None:
    arguments = command if command == ["--help"] else [*command, str(tiny_run[0] / "model.whit")]
    program = (
        "import sys, whit.cli\n"
        f"sys.argv = ['whit', *{arguments!r}]\n"
        "try: whit.cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "assert not code, code\n"
        "found = {'torch', 'onnx', 'jax'} & sys.modules.keys()\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_the_script_reports_an_error_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run([WHIT, "inspect", "nothing.whit"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: there is no file nothing.whit\n"


def test_usage_errors_end_with_2(tiny_run: tuple[Path, str]) -> None:
    model = tiny_run[0] / "model.whit"
    fails(whit("export", model, "--to", "tflite"), "--to", code=2)
    fails(whit("compress", "tiny_network:make"), "--data", code=2)
    fails(whit(*COMPRESS, "--out", "x", "--mean", "a,b"), "a,b", code=2)
    fails(whit("bench", tiny_run[0], "--threads", "0"), code=2)


# Bad input


def refused(*options: str | Path) -> Result:
    """``whit compress`` that ends without leaving its folder."""
    outcome = whit(*COMPRESS, "--out", "refused", *options)
    assert not Path("refused").exists()
    return outcome


@pytest.mark.usefixtures("in_tiny_folder")
@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("tiny_network", ["package.module:factory"]),
        ("tiny_network:missing", ["has no missing", "make"]),
        ("no_such_module:make", ["there is no module no_such_module"]),
        ("tiny_network:number", ["is a int", "cannot be called"]),
        ("tiny_network:needs_width", ["without arguments", "width"]),
        ("tiny_network:make_list", ["returns list", "torch.nn.Module"]),
        ("tiny_network:broken", ["ZeroDivisionError", "tiny_network.py, line"]),
        ("tiny_network:with_nan", ["conv.weight (2)"]),
        ("model.pt", ["safetensors"]),
        ("nothing.pt2", ["there is no file nothing.pt2"]),
        ("data.npz:make", ["there is no module data"]),
    ],
)
def test_models_that_are_none(model: str, parts: list[str]) -> None:
    outcome = whit("compress", model, *COMPRESS[2:], "--out", "refused")
    fails(outcome, *parts)
    assert not Path("refused").exists()


@pytest.mark.usefixtures("in_tiny_folder")
def test_weights_with_missing_and_surplus_names_and_wrong_shapes(tmp_path: Path) -> None:
    weights = load_file("weights.safetensors")
    del weights["head.bias"], weights["conv.bias"]
    weights |= {"extra": np.zeros(3, np.float32), "head.weight": np.zeros((4, 9), np.float32)}
    save_file(weights, tmp_path / "w.safetensors")
    outcome = refused("--weights", tmp_path / "w.safetensors")
    fails(outcome, "lacks conv.bias, head.bias", "has extra", "head.weight has shape (4, 9), in the network (4, 8)")


@pytest.mark.usefixtures("in_tiny_folder")
def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    weights = load_file("weights.safetensors")
    weights["head.bias"] = np.array([1, np.nan, np.inf, 0], np.float32)
    save_file(weights, tmp_path / "w.safetensors")
    fails(refused("--weights", tmp_path / "w.safetensors"), "NaN or infinite", "head.bias (2)")


@pytest.mark.usefixtures("in_tiny_folder")
def test_weights_that_are_no_safetensors(tmp_path: Path) -> None:
    whole = Path("weights.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04K\x01.")
    fails(refused("--weights", tmp_path / "cut.safetensors"), "not a whole safetensors file")
    fails(refused("--weights", tmp_path / "pickle.pt"), "not a whole safetensors file", "safetensors.torch.save_file")
    fails(refused("--weights", "none.safetensors"), "there is no weights file none.safetensors")
    fails(refused("--weights", tmp_path), "there is no weights file")


def data_file(folder: Path, **arrays: np.ndarray) -> Path:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 8, 8, 3)).astype(np.float32)
    np.savez(folder / "bad.npz", **({"x": x, "y": generator.integers(0, 4, 20)} | arrays))
    return folder / "bad.npz"


@pytest.mark.usefixtures("in_tiny_folder")
@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": np.zeros((20, 8, 8, 5), np.float32)}, ["Net cannot run on the training data", "(2, 5, 8, 8)"]),
        ({"x": np.zeros((20, 8), np.float32)}, ["four axes", "(2, 8)"]),
        ({"x": np.zeros((19, 8, 8, 3), np.float32)}, ["unequal numbers", "19"]),
        ({"x": np.full((20, 8, 8, 3), np.nan, np.float32)}, ["3840 NaN"]),
        ({"x": np.zeros((0, 8, 8, 3)), "y": np.zeros(0, np.int64)}, ["empty"]),
        ({"x": np.array(3.0)}, ["single number"]),
        ({"y": np.arange(20)}, ["labels lie outside 0 to 3"]),
        ({"y": np.full(20, -1)}, ["labels lie outside 0 to 3"]),
        ({"y": np.zeros(20)}, ["integer labels"]),
        ({"x": np.array([{}] * 20, object)}, ["plain arrays"]),
    ],
)
def test_data_that_cannot_be_used(arrays: dict[str, np.ndarray], parts: list[str], tmp_path: Path) -> None:
    fails(refused("--data", data_file(tmp_path, **arrays)), *parts)


@pytest.mark.usefixtures("in_tiny_folder")
def test_data_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("x, y")
    (tmp_path / "cut.npz").write_bytes(Path("data.npz").read_bytes()[:-400])
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "names.npz", images=np.zeros(3), labels=np.zeros(3))
    fails(refused("--data", "none.npz"), "there is no data file none.npz")
    fails(refused("--data", tmp_path / "text.npz"), "not an .npz")
    fails(refused("--data", tmp_path / "cut.npz"), "not an .npz")
    fails(refused("--data", tmp_path / "single.npy"), "single array")
    fails(refused("--data", tmp_path / "names.npz"), "no array x, y", "images, labels")
    fails(refused("--test", "none.npz"), "there is no data file none.npz")


@pytest.mark.usefixtures("in_tiny_folder")
def test_data_factories_that_are_none() -> None:
    fails(refused("--data", "tiny_network:make"), "returns Net", "(x, y) or a whit.Data")
    fails(refused("--data", "tiny_network:absent"), "has no absent")
    fails(refused("--data", "tiny_network:make_data"), "returns whit.Data", "images of its own")
    fails(refused("--test", "tiny_network:make_data"), "test data are (x, y)")


@pytest.mark.usefixtures("in_tiny_folder")
@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        ('[[step]]\nkind = "quantize"\nrules = [{kind = "rule", layers = "nope.*"}]', ["nope.*", "conv, head"]),
        ('[[step]]\nkind = "quantize"\n[[step]]\nkind = "prune"\namount = 0.5', ["step 2 (Prune)", "before Quantize"]),
        ('[[step]]\nkind = "prune"\namount = 1.0', ["step 1", "[0, 1)"]),
        ('[[step]]\nkind = "prune"\namount = -0.1', ["step 1", "[0, 1)"]),
        ('[[step]]\nkind = "prune"\namount = nan', ["step 1", "[0, 1)"]),
        ("not toml", ["is not TOML"]),
        ("", ["no [[step]]"]),
        (None, ["there is no plan file"]),
    ],
)
def test_plans_that_cannot_be_run(plan: str | None, parts: list[str], tmp_path: Path) -> None:
    if plan is not None:
        (tmp_path / "bad.toml").write_text(plan)
    fails(refused("--plan", tmp_path / "bad.toml"), *parts)


@pytest.mark.usefixtures("in_tiny_folder")
def test_a_metric_that_does_not_exist() -> None:
    fails(refused("--metric", "f1"), "no metric 'f1'", "accuracy, mae, mse")


def test_an_output_folder_that_exists_is_refused_before_anything_else(tiny_run: tuple[Path, str]) -> None:
    before = {item.name: item.read_bytes() for item in tiny_run[0].iterdir()}
    outcome = whit("compress", "no_such_module:make", "--data", "none", "--plan", "none", "--out", tiny_run[0])
    fails(outcome, "exists already", "--overwrite")
    assert {item.name: item.read_bytes() for item in tiny_run[0].iterdir()} == before


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["export", "--to", "onnx"]])
def test_files_that_are_no_whit(command: list[str], tiny_run: tuple[Path, str], tmp_path: Path) -> None:
    whole = (tiny_run[0] / "model.whit").read_bytes()
    other, cut, empty = tmp_path / "other.whit", tmp_path / "cut.whit", tmp_path / "empty.whit"
    other.write_bytes((tiny_run[0] / "model.onnx").read_bytes())
    cut.write_bytes(whole[:-1])
    empty.write_bytes(b"")
    fails(whit(*command, other), "is not a .whit file")
    fails(whit(*command, cut), "is cut short")
    fails(whit(*command, empty), "is not a .whit file")
    fails(whit(*command, tmp_path / "none.whit"), "there is no file")
    fails(whit(*command, tmp_path), "there is no file")


def test_bench_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    fails(whit("bench", tmp_path), "holds no result.json")
    (tmp_path / "result.json").write_text("{}")
    fails(whit("bench", tmp_path), "is not the result of a run")
    (tmp_path / "result.json").write_text("{")
    fails(whit("bench", tmp_path), "is not JSON")


@pytest.mark.usefixtures("in_tiny_folder")
def test_a_result_is_kept_beside_when_its_folder_appears_during_the_run(
    tiny_result: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def compress(*_: object, **__: object) -> object:
        out.mkdir()
        (out / "other").write_text("of somebody else")
        return tiny_result

    # The package gives the function's name to what is named like its module.
    monkeypatch.setattr(sys.modules["whit.compress"], "compress", compress)
    outcome = whit(*COMPRESS, "--out", out)
    fails(outcome, "exists already", "run-2")
    assert (out / "other").read_text() == "of somebody else"
    assert (tmp_path / "run-2" / "model.whit").is_file()


def test_checkpoint_compresses_shards_and_says_what_they_take(tmp_path: Path) -> None:
    values = {name: np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32) for name in ("a", "b")}
    save_file(values, tmp_path / "model.safetensors")
    outcome = whit("checkpoint", tmp_path / "model.safetensors", "--out", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.output
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.whit"))
    text = " ".join(outcome.stdout.split())
    assert f"in 1 shards in {tmp_path / 'out'}, {8 * size / 32768:.2f} bits for each of 32,768 parameters" in text


def test_checkpoint_that_is_none_fails_in_one_message(tmp_path: Path) -> None:
    fails(whit("checkpoint", tmp_path, "--out", tmp_path / "out"), "holds no .safetensors files")
