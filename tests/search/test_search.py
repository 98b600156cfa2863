"""A budget in, the plan that keeps to it out: what is chosen, on which samples, and how it goes on after a kill."""

import importlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import whit
from whit.cli.searched import print_found
from whit.cli.table import bytes_text, table
from whit.export.openvino import OpenVino
from whit.metrics import Accuracy
from whit.search import search
from whit.search.trials import RECORD, TRIALS
from whit.steps import FoldParametrizations
from whit.toml import loads
from whit.workers import Processes

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # pytest imports tests by their paths, what workers and commands import has to be found
    sys.path.insert(0, str(HERE))
waves = importlib.import_module("waves")


@pytest.fixture(scope="module")
def net():
    return waves.trained()


@pytest.fixture(scope="module")
def data():
    return whit.Data.of(*waves.drawn(600, 0), *waves.drawn(500, 1))


BUDGET = "drop<=3pt, minimize=bytes"
FEW = {"trials": 6, "seed": 3}
"""Four roundings, a training and its control."""


@pytest.fixture(scope="module")
def found(net, data):
    return search(net, BUDGET, data=data, **FEW)


def choices(found):
    """What a search came to, but for times."""
    points = [(point.trial, point.spent.bytes, point.spent.drop) for point in found.front]
    return found.chosen.trial, found.best.file, found.trials, points


def test_what_is_found_is_measured_and_small(found):
    assert found.trials == FEW["trials"]
    assert found.missed_choosing == {}
    assert len(found.best.file) == found.best.after.bytes == found.chosen.spent.bytes
    assert found.best.after.bytes < found.best.before.bytes / 4
    assert found.best.parity.agreement >= 0.99
    assert found.failures == ()


def test_the_front_gives_up_quality_for_bytes_and_holds_what_was_chosen(found):
    bytes_ = [point.spent.bytes for point in found.front]
    drops = [point.spent.drop for point in found.front]
    assert bytes_ == sorted(set(bytes_))
    assert drops == sorted(set(drops), reverse=True)
    assert found.chosen in found.front


def test_the_chosen_plan_gives_the_same_file_by_itself(found, net, data):
    # Reproducible from its plan: compress draws no random number that the plan does not fix.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = whit.compress(net, found.chosen.plan, data=data.choosing(seed=FEW["seed"]))
    finally:
        torch.set_num_threads(threads)
    assert again.file == found.best.file


def as_it_is(layer):
    return layer


@pytest.mark.parametrize("normed", [as_it_is, weight_norm])
def test_networks_without_batch_normalisation_are_searched_too(data, normed):
    net = waves.trained(
        lambda: nn.Sequential(nn.Flatten(), normed(nn.Linear(64, 24)), nn.ReLU(), normed(nn.Linear(24, 4)))
    )
    found = search(net, "drop<=10pt, minimize=bytes", data=data, trials=2, seed=3)
    assert found.failures == ()
    assert len(found.best.ledger.rounded()) == 2
    computes = normed is weight_norm
    assert any(isinstance(step, FoldParametrizations) for step in found.chosen.plan.steps) == computes


def test_memory_is_measured_of_all_that_is_tried_and_of_what_is_delivered(net, data):
    found = search(net, "drop<=3pt, memory<=1GB, minimize=memory", data=data, trials=3, seed=3)
    assert found.missed == {}
    assert all(0 < point.spent.memory < 10**9 for point in found.front)
    assert found.chosen.spent.memory == min(point.spent.memory for point in found.front)
    console = Console(record=True, width=200)
    print_found(found, console)
    shown = console.export_text()
    assert "peak memory" in shown  # of the original and of the best, on the test samples
    assert bytes_text(found.best.after.memory) in shown


def test_latency_is_that_in_the_runtime_of_the_target(net, data, monkeypatch):
    pytest.importorskip("openvino", reason="pip install 'whit[openvino]'")
    opened = []
    real = OpenVino.open
    monkeypatch.setattr(
        OpenVino, "open", lambda self, path, *, threads: opened.append(path) or real(self, path, threads=threads)
    )
    found = search(
        net, "drop<=3pt, minimize=latency", data=data, target=whit.Target.here("openvino"), trials=8, seed=3, batch=4
    )
    # The original once, the trials but for the control, and at the end the best, timed and compared.
    assert len(opened) == 1 + (found.trials - 1) + 2
    assert found.failures == ()  # the control's weights have 16 bits, which OpenVINO has not
    assert (found.best.runtime, found.best.batch) == ("openvino", 4)
    assert "ms for 4 samples, openvino" in list(table(found.best).columns[0].cells)


def test_memory_in_another_runtime_is_refused(net, data):
    with pytest.raises(whit.PlanError, match="memory, which is measured in ONNX Runtime, and the target is litert"):
        search(net, "drop<=1%, memory<=1MB", data=data, target=whit.Target(runtime="litert"))


class Watched(Accuracy):
    """Accuracy that remembers how many targets it saw, call by call."""

    seen: ClassVar[list[bytes]] = []

    def __call__(self, outputs, targets):
        self.seen.append(targets.tobytes())
        return super().__call__(outputs, targets)


def test_the_test_samples_are_judged_on_once_before_and_once_after(net, data):
    Watched.seen.clear()
    search(net, BUDGET, data=data, metric=Watched(), trials=2)
    test = data.test.targets.tobytes()
    assert [one == test for one in Watched.seen[-2:]] == [True, True]
    assert Watched.seen.count(test) == 2


def test_validation_samples_of_their_own_are_what_is_chosen_by(net, data):
    x, y = waves.drawn(200, 7)
    Watched.seen.clear()
    whole = whit.Data.of(*waves.drawn(600, 0), *waves.drawn(500, 1), validation=(x, y))
    found = search(net, BUDGET, data=whole, metric=Watched(), trials=6)
    assert {len(np.frombuffer(one, y.dtype)) for one in Watched.seen[:-2]} <= {200}
    # What was chosen by is new to the network, so no training needs a control beside it.
    assert not any("bits = 16" in str(point.plan) for point in found.front)


class Branched(torch.nn.Module):
    """The network, with two branches that take most of its operations and add next to nothing."""

    def __init__(self):
        super().__init__()
        self.net = waves.trained()
        self.branches = torch.nn.ModuleList(torch.nn.Conv2d(12, 12, 3, padding=1) for _ in range(2))
        for parameter in self.branches.parameters():
            parameter.data *= 1e-3

    def forward(self, x):
        x = torch.relu(self.net.norm(self.net.first(x)))
        for branch in self.branches:
            x = x + branch(x)
        return self.net.head(torch.relu(self.net.second(x)).mean((2, 3)))


def test_where_operations_count_branches_are_left_out(data):
    found = search(Branched(), "drop<=3pt, minimize=macs", data=data, trials=3)
    assert found.failures == ()
    assert [step.unit for step in found.chosen.plan.steps if isinstance(step, whit.Prune)] == ["residual"]
    # 9 * 12 * 64 and 9 * 12 * 12 * 16 for the network, 9 * 12 * 12 * 64 a branch, and 48 for the last layer.
    assert (found.best.before.macs, found.best.after.macs) == (193_584, 110_640)


# Going on


SCRIPT = """
import sys
sys.path.insert(0, {home!r})
import torch
import waves
import whit
torch.set_num_threads(1)
net = waves.Net()
net.load_state_dict(torch.load({weights!r}))
data = whit.Data.of(*waves.drawn(600, 0), *waves.drawn(500, 1))
whit.search(net.eval(), {budget!r}, data=data, folder={folder!r}, **{few!r})
"""


def run(net, folder):
    weights = folder.with_suffix(".pt")  # trained anew on other threads it would be another network
    torch.save(net.state_dict(), weights)
    script = SCRIPT.format(home=str(HERE), weights=str(weights), folder=str(folder), budget=BUDGET, few=FEW)
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])


def tried(folder):
    """How many trials are noted."""
    if not (folder / RECORD).exists():
        return 0
    with sqlite3.connect(folder / RECORD) as connection:
        try:
            return connection.execute("SELECT COUNT(*) FROM trials WHERE outcome != 'null'").fetchone()[0]
        except sqlite3.OperationalError:  # its tables are just being made
            return 0
        finally:
            connection.rollback()


def test_a_search_that_is_killed_goes_on_and_comes_to_the_same(found, net, data, tmp_path):
    for trials in (1, 4):
        process = run(net, tmp_path / "run")
        while tried(tmp_path / "run") < trials:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = tried(tmp_path / "run")
    assert before < FEW["trials"]
    again = search(net, BUDGET, data=data, folder=tmp_path / "run", **FEW)
    assert choices(again) == choices(found)
    # Nothing is tried anew by a search that is over.
    start = time.monotonic()
    assert choices(search(net, BUDGET, data=data, folder=tmp_path / "run", **FEW)) == choices(found)
    assert again.seconds > 0
    assert time.monotonic() - start < again.seconds


def test_workers_come_to_the_same_and_one_that_is_killed_costs_its_trial(found, net, data, tmp_path):
    killed = []

    def kill():
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if tried(tmp_path) >= 1:
                for child in multiprocessing.active_children():
                    killed.append(child.pid)
                    os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    again = search(net, BUDGET, data=data, folder=tmp_path, workers=Processes(2), **FEW)
    killer.join()
    assert killed
    assert choices(again) == choices(found)


def test_another_search_is_not_mixed_up_with_one_that_is_there(net, data, tmp_path):
    search(net, BUDGET, data=data, folder=tmp_path, trials=1)
    with pytest.raises(whit.OutputError, match=r"holds another search \(budget was .*drop<=0.03.*--overwrite"):
        search(net, "drop<=2pt", data=data, folder=tmp_path, trials=1)
    with pytest.raises(whit.OutputError, match=r"another search \(seed was 0 and is 1\)"):
        search(net, BUDGET, data=data, folder=tmp_path, trials=1, seed=1)
    with pytest.raises(whit.OutputError, match=r"another search \(teacher was the network itself and is \w{16}\)"):
        search(net, BUDGET, data=data, folder=tmp_path, trials=1, teacher=waves.trained())
    (tmp_path / RECORD).write_bytes(b"something else" * 100)
    with pytest.raises(whit.FileError, match=r"is not the record of a search"):
        search(net, BUDGET, data=data, folder=tmp_path, trials=1)


def test_trainings_learn_from_the_teacher_that_was_given_wherever_they_are_done(net, data, tmp_path):
    teacher = waves.trained()
    teacher.head.weight.data *= 3
    search(net, BUDGET, data=data, teacher=teacher, folder=tmp_path, workers=Processes(2), **FEW)
    with sqlite3.connect(tmp_path / RECORD) as connection:
        trained = connection.execute("SELECT hash, plan FROM trials WHERE plan LIKE '%finetune%'").fetchall()
    [name, plan] = trained[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        given = {"plan": loads(plan), "data": data.choosing(seed=FEW["seed"])}
        files = [whit.compress(net, teacher=one, **given).file for one in (teacher, None)]
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / TRIALS / f"{name}.whit").read_bytes() == files[0] != files[1]


def test_a_teacher_with_other_outputs_is_an_error_before_anything_is_tried(net, data):
    other = waves.trained()
    other.head = torch.nn.Linear(12, 5)
    with pytest.raises(whit.ModelError, match=r"outputs have shape \(2, 5\) and the network's \(2, 4\)"):
        search(net, BUDGET, data=data, teacher=other)


# Time


class Clock:
    """A clock that goes on by half a second whenever it is looked at, however fast the machine is."""

    def __init__(self):
        self.now = 1e9

    def __call__(self):
        self.now += 0.5
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("whit.search.searching", "whit.search.trying", "whit.search.watch"):
        monkeypatch.setattr(sys.modules[module], "time", clock)
    return clock


def test_a_time_limit_is_kept_and_the_best_so_far_comes_out(net, data, clock, tmp_path):
    start = clock.now
    found = search(net, f"{BUDGET}, time<=60s", data=data, folder=tmp_path)
    assert clock.now - start < 70
    assert 1 <= found.trials < 12
    assert found.missed_choosing == {}
    # The time that it took counts when it goes on: nothing is left, so nothing new is tried.
    again = search(net, f"{BUDGET}, time<=60s", data=data, folder=tmp_path)
    assert choices(again) == choices(found)


def test_no_time_for_anything_is_an_error(net, data):
    with pytest.raises(whit.PlanError, match=r"the time was over before the first plan was tried.*allow more time"):
        search(net, f"{BUDGET}, time<=1s", data=data)


# What cannot be


def test_a_budget_that_cannot_be_reached_ends_with_the_nearest_and_by_how_much(net, data):
    found = search(net, "drop<=3pt, bytes<=100B, minimize=bytes", data=data, trials=2)
    assert found.missed_choosing["bytes"] == found.chosen.spent.bytes - 100 > 0
    assert found.missed["bytes"] == len(found.best.file) - 100


class Backwards(Accuracy):
    higher_is_better = False


class NotANumber(Accuracy):
    def __call__(self, outputs, targets):
        return float("nan")


def test_a_metric_that_goes_the_wrong_way_is_an_error(net, data):
    with pytest.raises(whit.DataError, match=r"goes the wrong way: it says that lower is better"):
        search(net, BUDGET, data=data, metric=Backwards())


def test_a_metric_that_gives_no_number_is_an_error(net, data):
    with pytest.raises(whit.DataError, match=r"accuracy gives nan for the original network on the validation data"):
        search(net, BUDGET, data=data, metric=NotANumber())


def test_data_too_few_to_split_or_to_see_the_drop_are_an_error(net):
    x, y = waves.drawn(40, 0)
    with pytest.raises(whit.DataError, match=r"4 training samples cannot be split"):
        search(net, BUDGET, data=whit.Data.of(x[:4], y[:4], x, y))
    with pytest.raises(whit.DataError, match=r"a drop of 0.03 cannot be seen on 4 validation samples"):
        search(net, BUDGET, data=whit.Data.of(x, y, x, y))


def test_a_dead_cluster_is_an_error_at_once(net, data):
    with pytest.raises(whit.WorkersError, match=r"there is no Ray cluster at|pip install 'whit\[ray\]'"):
        search(net, BUDGET, data=data, workers=whit.Ray("127.0.0.1:1"))


def test_a_network_without_weights_is_an_error(data):
    net = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    with pytest.raises(whit.ModelError, match="no convolution or linear layer has weights in float32"):
        search(net, "drop<=3pt, minimize=bytes", data=data)


def test_nothing_to_try_is_an_error(net, data):
    with pytest.raises(whit.PlanError, match=r"search\(trials=0\)"):
        search(net, BUDGET, data=data, trials=0)


# On the command line


@pytest.fixture
def project(tmp_path, monkeypatch, data):
    for name, samples in (("train", data.train), ("test", data.test)):
        np.savez(tmp_path / f"{name}.npz", x=samples.inputs[0], y=samples.targets)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whit_compress(*arguments):
    from typer.testing import CliRunner

    from whit.cli import app

    command = ["compress", "waves:trained", "--data", "train.npz", "--test", "test.npz", "--out", "run", *arguments]
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, command)


def test_the_command_line_needs_a_budget_and_nothing_else(project, clock):
    outcome = whit_compress("--budget", BUDGET, "--time", "60s")
    assert outcome.exit_code == 0, outcome.output
    for words in ("plans tried for drop<=0.03, time<=1min, minimize=bytes", "chosen", "On the test samples", "before"):
        assert words in outcome.stdout, outcome.stdout
    names = {item.name for item in (project / "run").iterdir()}
    assert {"model.whit", "model.onnx", "plan.toml", "result.json", RECORD, "front"} <= names
    plans = sorted((project / "run" / "front").iterdir())
    assert plans
    assert all(whit.load_plan(one).steps for one in plans)
    assert (project / "run" / "plan.toml").read_text() in [one.read_text() for one in plans]
    assert "holds another search" in whit_compress("--budget", "drop<=2pt").stderr


def test_options_that_contradict_each_other_are_errors(project):
    assert "--budget" in whit_compress("--time", "1h").stderr
    assert "give one of them" in whit_compress("--budget", BUDGET, "--plan", "plan.toml").stderr
    (project / "run").mkdir()
    (project / "run" / "mine.txt").write_text("mine")
    outcome = whit_compress("--budget", BUDGET)
    assert "what no search wrote (mine.txt)" in outcome.stderr
    shutil.rmtree(project / "run")
