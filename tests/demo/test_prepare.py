import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from whit.demo import prepare as module
from whit.demo.answer_sheets import Exam, generate
from whit.demo.network import make_network
from whit.demo.prepare import Prepared, Settings, prepare
from whit.errors import OutputError

SMALL = Settings(train_sheets=30, test_sheets=200, steps=2, batch_size=8, width=0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "demo"


def content(prepared: Prepared) -> dict[str, tuple[bytes, int]]:
    paths = (prepared.weights, prepared.train, prepared.test)
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_it_leaves_data_a_network_and_the_limit(folder: Path):
    prepared = prepare(folder, settings=SMALL)
    for path, count in ((prepared.train, 30), (prepared.test, 200)):
        with np.load(path) as data:
            assert data["x"].shape == (count, 3, 32, 32)
            assert data["y"].shape == (count, 1)
            assert data["x"].dtype == data["y"].dtype == np.float32
    make_network(width=0.05).load_state_dict(load_file(prepared.weights))
    assert 2 < prepared.limit < 3.5


def test_nobody_is_in_two_of_the_files():
    people = [generate(3, SMALL.people(name))[1] for name in ("train.npz", "test.npz")]
    assert not np.intersect1d(*people).size


def test_a_second_run_reuses_everything(folder: Path):
    first = prepare(folder, settings=SMALL)
    before = content(first)
    assert prepare(folder, settings=SMALL) == first
    assert content(first) == before


def test_only_what_is_missing_is_made_again(folder: Path):
    prepared = prepare(folder, settings=SMALL)
    before = content(prepared)
    prepared.train.unlink()
    prepare(folder, settings=SMALL)
    after = content(prepared)
    changed = {name for name in before if before[name][1] != after[name][1]}
    assert changed == {"train.npz"}
    with np.load(prepared.train) as data:
        assert np.array_equal(data["y"], generate(30, SMALL.people("train.npz"))[1])


@pytest.mark.parametrize(
    "change", [{"exam": Exam(pixel_noise=0.2)}, {"steps": 3}, {"seed": 1}, {"learning_rate": 1e-3}], ids=str
)
def test_other_settings_leave_nothing_of_the_old(folder: Path, change: dict[str, object]):
    before = content(prepare(folder, settings=SMALL))
    after = content(prepare(folder, settings=dataclasses.replace(SMALL, **change)))
    assert all(before[name][1] != after[name][1] for name in before)


def test_another_revision_of_the_demo_leaves_nothing_of_the_old(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = content(prepare(folder, settings=SMALL))
    monkeypatch.setattr(module, "REVISION", module.REVISION + 1)
    after = content(prepare(folder, settings=SMALL))
    assert all(before[name][1] != after[name][1] for name in before)


def test_an_interrupted_training_loses_no_data_and_leaves_no_fragments(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, settings=SMALL)
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "test.npz", "train.npz"]
    made = (folder / "train.npz").stat().st_mtime_ns
    # What a kill leaves while a file is written:
    (folder / ".original.safetensors.1.part").write_bytes(b"half a netw")
    prepared = prepare(folder, settings=SMALL)
    assert prepared.train.stat().st_mtime_ns == made
    assert not list(folder.glob("*.part"))


def test_files_that_are_not_the_demos_are_left_alone(folder: Path):
    folder.mkdir(parents=True)
    (folder / "train.npz").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"holds train\.npz but no demo\.json.*name another folder"):
        prepare(folder, settings=SMALL)
    assert (folder / "train.npz").read_bytes() == b"somebody's"


@pytest.mark.parametrize("text", ["not json", "[]", json.dumps({"name": "another demo"})])
def test_a_foreign_settings_file_is_left_alone(folder: Path, text: str):
    folder.mkdir(parents=True)
    (folder / "demo.json").write_text(text)
    with pytest.raises(OutputError, match=r"demo\.json is not the demo's: it has no fingerprint"):
        prepare(folder, settings=SMALL)
    assert (folder / "demo.json").read_text() == text


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be prepared"):
        prepare(tmp_path / "file", settings=SMALL)
