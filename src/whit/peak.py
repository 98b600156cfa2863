"""How much memory a file takes in ONNX Runtime: by how much it raises the peak of a process of its own."""

import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from whit.data import Array
from whit.errors import FileError, PlanError
from whit.runtime import load, open_onnx

__all__ = ["check_measurable", "peak_memory"]

_CALLS = 3
_PROCESSES = 3
_STATUS = Path("/proc/self/status")


def check_measurable() -> None:
    """Raise ``PlanError`` where the system tells no peak."""
    if _peak() is None:
        raise PlanError(
            f"{sys.platform} does not tell how much memory a process took at most; leave memory out of the budget, or "
            "search on Linux or macOS"
        )


def peak_memory(path: Path, inputs: tuple[Array, ...], *, threads: int = 1) -> int:
    """Bytes by which opening a file and running it raises the peak of a process that has loaded ONNX Runtime.

    What the file is decoded to counts, and all that ONNX Runtime holds and plans beside; Python, NumPy and the runtime
    themselves do not. The median of three processes, each of which calls the network three times; they differ by some
    hundred kilobytes, so small networks cannot be told apart by it.

    Args:
        path: A ``.whit`` or an ``.onnx`` file.
        inputs: What to call it with.
        threads: Of ONNX Runtime.

    Raises:
        FileError: It cannot be opened or run.
        PlanError: The system tells no peak.
    """
    check_measurable()
    with TemporaryDirectory(prefix="whit-") as folder:
        samples = Path(folder) / "inputs.npz"
        np.savez(samples, *inputs)
        command = [sys.executable, "-m", "whit.peak", str(path.resolve()), str(samples), str(threads)]
        return int(median(_one(command) for _ in range(_PROCESSES)))


def _one(command: list[str]) -> int:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FileError(f"{command[3]} cannot be run to see how much memory it takes: {done.stderr.strip()[-500:]}")
    return int(done.stdout)


def _peak() -> int | None:
    """Most bytes that this process has held so far; None where the system does not tell."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux has ru_maxrss too, but it is never less than what the process held that started this one.
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE) if _STATUS.exists() else None
    return None if found is None else int(found[1]) * 1024


def _main(path: str, samples: str, threads: str) -> None:
    with np.load(samples) as stored:
        inputs = tuple(stored[name] for name in stored.files)
    before = _peak() or 0
    session = (load if path.endswith(".whit") else open_onnx)(path, threads=int(threads))
    for _ in range(_CALLS):
        session(*inputs)
    print((_peak() or 0) - before)


if __name__ == "__main__":
    _main(*sys.argv[1:])
