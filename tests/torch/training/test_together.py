"""Trainings by two processes: the network of one, but for the order of sums; what goes wrong is an error in both."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from whit import PlanError
from whit.ranks import Ranks
from whit.torch.training.together import share_of, whole_batches

TRAIN = '''
"""Trains in the ways that are named and saves what comes out of each; an error of whit's is printed."""

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

import whit
from whit import Distill, Finetune, Int, decide
from whit.data import Samples
from whit.errors import WhitError
from whit.ledger import Ledger
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.ranks import Ranks
from whit.torch.network import TorchNetwork

STEP = Finetune(epochs=2, learning_rate=0.02, batch_size=32)
WAYS = {
    "plain": STEP,
    "accumulated": replace(STEP, batch_size=16, accumulate=2, optimizer="sgd", average=0.5),
    "augmented": replace(STEP, augment=("flip", "shift"), distill=Distill(weight=0.5), weight_decay=0.01),
    "judged": replace(STEP, epochs=6, held_out=0.25, patience=2, learning_rate=0.1),
    "rounded": replace(STEP, trains="both", rate=1e-4, optimizer="sgd"),
    "folded": replace(STEP, trains="both", batch_norm=True),
    "sharded": replace(STEP, sharded=True, held_out=0.25, average=0.5, distill=Distill(weight=0.5)),
    "uneven": replace(STEP, batch_size=31),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        # Without a bias, whose gradient in front of the normalisation is nothing but the rounding of sums.
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Dies(Progress):
    """The second process is killed after some steps."""

    @contextmanager
    def bar(self, what, total):
        self.left = 3
        yield self

    def advance(self, steps=1, note=""):
        self.left -= bool(note)
        if self.left == 0 and Ranks.here().rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train(way, folder, ranks):
    # Whoever is not the first begins elsewhere, and must come to what the first has; but codes are chosen by each.
    torch.manual_seed(0 if way in ("rounded", "folded") else ranks.rank)
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 128)
    x = (random.normal(size=(128, 3, 8, 8)) + np.eye(3)[y][:, :, None, None]).astype(np.float32)
    samples = Samples((x,), y)
    network = TorchNetwork.of(Net(), samples)
    torch.manual_seed(5)
    teacher, ledger = TorchNetwork.of(Net(), samples), Ledger()
    if way in ("rounded", "folded"):
        ledger = ledger.record(*network.foldable())
        step = whit.Quantize(weights=Int(bits=4), activations=Int(bits=8, symmetric=False, per="tensor"))
        network.apply_(network.foldable())
        made, _ = decide.rounding(step, network, ledger, samples, "cross_entropy")
        network.apply_(made)
        ledger = ledger.record(*made)
    progress = Dies() if way == "dies" else Progress()
    if way == "kept":
        network.finetune_(WAYS["sharded"], samples, Accuracy(), ledger, teacher, progress, folder / "share")
    state = folder / "state" if way == "apart" and ranks.rank == 0 else None
    start = network.copy()
    trained = network.finetune_(WAYS.get(way, STEP), samples, Accuracy(), ledger, teacher, progress, state)
    if way == "apart":  # a second time, when only the first process finds that it is done
        start.finetune_(STEP, samples, Accuracy(), ledger, teacher, progress, state)
    values = {name: np.array(value) for name, value in network.values().items()}
    codes = {f"codes.{name}": one.codes for name, one in ledger.record(*trained).rounded().items()}
    save_file(values | codes, folder / f"{way}-{ranks.rank}-of-{ranks.count}.safetensors")


folder, ranks = Path(sys.argv[1]), Ranks.here()
try:
    for way in sys.argv[2:]:
        train(way, folder, ranks)
except WhitError as error:
    print(type(error).__name__, error, flush=True)
'''
LEFT = """
import atexit
from pathlib import Path

import torch
from whit.ranks import Ranks


def left():
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    print([name for name in names if "gloo" in name])


atexit.register(left)  # called after what is registered later
ranks = Ranks.here()
ranks.sum_(torch.ones(3))
print(ranks.every(ranks.rank), ranks.from_first(lambda: 7))
left()
"""
WAYS = ("plain", "accumulated", "augmented", "judged", "rounded", "folded", "sharded")


def run(count: int, command: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """What so many processes print, and on stderr, started as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=os.environ
            | place
            | {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        return [one.communicate(timeout=300) for one in started]
    finally:
        for one in started:
            one.kill()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the processes, in a folder of its own."""
    path = tmp_path_factory.mktemp("together") / "train.py"
    path.write_text(TRAIN)
    return path


@pytest.fixture(scope="module")
def trained(script: Path) -> Path:
    """The folder with what one process and what two made of every way of training."""
    for count in (1, 2):
        for printed, error in run(count, [str(script), str(script.parent), *WAYS], script.parent):
            assert (printed, error) == ("", "")
    return script.parent


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_the_network_that_one_trains(trained: Path, way: str) -> None:
    one, first, second = (load_file(trained / f"{way}-{place}.safetensors") for place in ("0-of-1", "0-of-2", "1-of-2"))
    assert one.keys() == first.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(first[name], second[name])
        if name.startswith("codes"):  # a code before rounding may lie on either side of a half
            assert (first[name] != values).mean() < 0.02
        elif f"codes.{name}" not in one:
            np.testing.assert_allclose(first[name], values, atol=1e-5)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("uneven", "PlanError a batch of 31 samples cannot be shared by 2 processes alike"),
        ("kept", "PlanError Finetune(sharded=True): no process holds the state of the training to keep"),
        ("apart", "FileError the processes found states of the training after [8, 0] steps; keep checkpoints in"),
    ],
)
def test_what_two_processes_cannot_do_together_is_an_error_in_both(script: Path, way: str, message: str) -> None:
    for printed, _ in run(2, [str(script), str(script.parent), way], script.parent):
        assert printed.startswith(message)


def test_a_process_that_is_killed_is_an_error_in_the_others_and_no_hang(script: Path) -> None:
    (first, _), (second, _) = run(2, [str(script), str(script.parent), "dies"], script.parent)
    assert first.startswith("WorkersError process 0 of 2 waited for the others, of which one is gone")
    assert second == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads")
def test_a_process_ends_without_threads_of_its_group(tmp_path: Path) -> None:
    for printed, error in run(2, ["-c", LEFT], tmp_path):
        values, before, after = printed.splitlines()
        assert (values, error) == ("[0, 1] 7", "")
        assert "gloo" in before
        assert after == "[]"


def test_the_command_line_runs_under_torchrun_and_one_process_writes_and_prints(tiny_folder: Path) -> None:
    plan = tiny_folder / "together.toml"
    steps = '[[step]]\nkind = "finetune"\nepochs = 1\nbatch_size = 40\n[[step]]\nkind = "fold_batch_norm"\n'
    plan.write_text(steps + '[[step]]\nkind = "quantize"\n')
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "127.0.0.1:0", "-m", "whit", "compress", "tiny_network:make", "--data", "data.npz"]
    command += ["--plan", "together.toml", "--out", "made/together", "--layout", "NHWC", "--overwrite"]
    outcome = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=tiny_folder,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    plan.unlink()
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("Written to made/together") == 1
    assert (tiny_folder / "made" / "together" / "model.whit").exists()


def test_a_batch_is_shared_alike() -> None:
    batch = torch.arange(6), torch.arange(6) * 10
    assert [[one.tolist() for one in share_of(Ranks(rank, 2), batch)] for rank in (0, 1)] == [
        [[0, 2, 4], [0, 20, 40]],
        [[1, 3, 5], [10, 30, 50]],
    ]
    with pytest.raises(PlanError, match="a batch of 6 samples cannot be shared by 4 processes alike"):
        share_of(Ranks(0, 4), batch)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 3, 2)])
def test_a_batch_normalisation_of_whole_batches_is_torchs(
    affine: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranks, "sum_", lambda self, tensor: tensor.mul_(self.count))  # two that see the same
    torch.manual_seed(0)
    x = (3 * torch.randn(shape) + 1).requires_grad_()
    parts = (torch.rand(4), torch.rand(4)) if affine else (None, None)
    stats = [(torch.zeros(4), torch.ones(4)) for _ in range(2)]
    twice = F.batch_norm(torch.cat([x, x]), *stats[0], *parts, training=True)
    with whole_batches(Ranks(0, 2)):
        found = F.batch_norm(x, *stats[1], *parts, training=True)
    torch.testing.assert_close(found, twice[: len(x)])
    for one, other in zip(*stats, strict=True):
        torch.testing.assert_close(one, other)
    weights = torch.randn(shape)
    by_two = torch.autograd.grad((twice * torch.cat([weights, weights])).sum(), x)[0]
    # Each of the two adds as much to the loss of both, and has half of the sum.
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), x)[0], by_two / 2, atol=1e-4, rtol=1e-4)


def test_alone_nothing_is_agreed_on() -> None:
    assert Ranks.here() == Ranks(0, 1)
    assert Ranks().every(3) == [3]


def test_a_search_is_not_for_several_processes(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from whit.cli import app

    for name, value in {"TORCHELASTIC_RUN_ID": "test", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    command = ["compress", "tiny_network:make", "--data", "data.npz", "--budget", "drop<=1%, minimize=bytes"]
    monkeypatch.chdir(tiny_folder)
    outcome = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--out", "made/searched"])
    assert outcome.exit_code == 1
    assert "error: process 1: torchrun trains one plan by several processes" in outcome.stderr
