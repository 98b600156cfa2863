import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import whit
from whit import OutputError
from whit.cli import output
from whit.cli.output import check_free, write_run

FILES = {"model.whit", "model.onnx", "plan.toml", "result.json"}


@pytest.fixture
def tiny_result(tiny_result: Any) -> Any:
    """Without the time of the network in floating point, which decides whether there is one file more."""
    return replace(tiny_result, floating_ms=None)


def contents(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir()}


def old_run(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f"old {name}")
    return contents(folder)


def test_a_run_is_written_with_its_parents(tiny_result: Any, tmp_path: Path) -> None:
    written = write_run(tiny_result, tmp_path / "new" / "run")
    assert written == tmp_path / "new" / "run"
    assert contents(written).keys() == FILES
    assert (written / "model.whit").read_bytes() == tiny_result.file
    assert whit.load_plan(written / "plan.toml") == tiny_result.plan
    assert [item.name for item in written.parent.iterdir()] == ["run"]


def test_the_original_is_written_when_asked_for(tiny_result: Any, tmp_path: Path) -> None:
    write_run(tiny_result, tmp_path / "run", keep_original=True)
    assert (tmp_path / "run" / "original.onnx").read_bytes() == tiny_result.original_onnx


def test_a_network_that_is_slower_in_integers_is_there_in_floating_point_too(tiny_result: Any, tmp_path: Path) -> None:
    time = replace(tiny_result.after.latency_ms, median=tiny_result.after.latency_ms.median / 2)
    result = replace(tiny_result, floating_ms=time, floating_onnx=b"floats")
    write_run(result, tmp_path / "run")
    assert (tmp_path / "run" / "floating.onnx").read_bytes() == b"floats"
    again = output.read_result(tmp_path / "run")
    assert again.slowdown == pytest.approx(2)
    assert again.faster_onnx == b"floats"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["slowdown"] == pytest.approx(2)
    write_run(tiny_result, tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run").keys() == FILES


def test_figures_that_are_not_numbers_are_null(tiny_result: Any, tmp_path: Path) -> None:
    result = replace(tiny_result, after=replace(tiny_result.after, quality=float("inf")))
    write_run(result, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["after"]["quality"] is None


def test_an_existing_folder_is_refused_and_stays(tiny_result: Any, tmp_path: Path) -> None:
    before = old_run(tmp_path / "run")
    with pytest.raises(OutputError, match="exists already"):
        write_run(tiny_result, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_overwrite_replaces_an_earlier_run_and_leaves_nothing_else(tiny_result: Any, tmp_path: Path) -> None:
    old_run(tmp_path / "run")
    write_run(tiny_result, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.whit").read_bytes() == tiny_result.file
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_overwrite_never_removes_what_whit_did_not_write(tiny_result: Any, tmp_path: Path) -> None:
    old_run(tmp_path / "run")
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        write_run(tiny_result, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        write_run(tiny_result, tmp_path / "file", overwrite=True)


def test_a_folder_under_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        check_free(tmp_path / "file" / "run")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("step", "overwrite"),
    [("write", False), ("first rename", False), ("write", True), ("first rename", True), ("second rename", True)],
)
def test_a_failure_leaves_the_old_folder_whole(
    step: str, overwrite: bool, tiny_result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    before = old_run(folder) if overwrite else {}
    _fail_at(step, OSError(28, "no space left"), monkeypatch)
    with pytest.raises(OutputError, match="no space left"):
        write_run(tiny_result, folder, overwrite=overwrite)
    assert (contents(folder) if overwrite else {}) == before
    assert [item.name for item in tmp_path.iterdir()] == (["run"] if overwrite else [])


@pytest.mark.parametrize("step", ["write", "first rename", "second rename"])
def test_after_a_kill_the_next_run_finds_the_old_folder_whole(
    step: str, tiny_result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    before = old_run(folder)
    check_free(folder, overwrite=True)
    with monkeypatch.context() as patch:
        _fail_at(step, KeyboardInterrupt(), patch)
        patch.setattr(output, "_recover", lambda folder: None)  # a process that was killed puts nothing in order
        with pytest.raises(KeyboardInterrupt):
            write_run(tiny_result, folder, overwrite=True)
    leftovers = {item.name for item in tmp_path.iterdir()}
    assert ".run.partial" in leftovers
    assert before in [contents(tmp_path / name) for name in leftovers], "the old folder is whole under some name"
    with pytest.raises(OutputError, match="exists already"):
        check_free(folder)
    assert contents(folder) == before
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def _fail_at(step: str, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Raise at the third file, or where a folder is renamed for the first or second time."""
    left = {"write": 3, "first rename": 1, "second rename": 2}[step]
    target, name = (output, "_write") if step == "write" else (Path, "rename")
    genuine = getattr(target, name)

    def fail(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        return genuine(*arguments)

    patch.setattr(target, name, fail)
