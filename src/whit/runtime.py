"""Open a ``.whit`` and run it: NumPy, whit's core and ONNX Runtime are all it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

from whit.data import Array
from whit.errors import DataError, FileError
from whit.store import read

__all__ = ["Session", "load", "open_onnx"]

_ROUNDS_WEIGHTS = "WeightBiasQuantization"
"""What ONNX Runtime calls rounding floating-point weights to int8 between rounded activations on its own account."""


class Session:
    """A network in ONNX Runtime: call it with a batch for each input.

    >>> session = load("model.whit")                                       # doctest: +SKIP
    >>> session(np.zeros((1, 3, 32, 32), np.float32)).shape                # doctest: +SKIP
    (1, 10)
    """

    def __init__(self, onnx_bytes: bytes, *, threads: int, name: str) -> None:
        """Make a session for a serialized ONNX model; ``name`` is for messages."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Otherwise ONNX Runtime rounds activations beside integer weights on its own account.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                onnx_bytes, options, providers=["CPUExecutionProvider"], disabled_optimizers=[_ROUNDS_WEIGHTS]
            )
        except Exception as error:  # ONNX Runtime has a dozen classes of its own without a common root
            raise FileError(f"{name}: ONNX Runtime cannot load its network: {str(error).splitlines()[0]}") from error
        self.name = name
        self.inputs: tuple[str, ...] = tuple(item.name for item in self._session.get_inputs())

    def __call__(self, *inputs: Array) -> Array:
        """Outputs ``(batch, ...)`` for one array ``(batch, ...)`` an input."""
        if len(inputs) != len(self.inputs):
            raise DataError(f"{self.name} has the inputs {', '.join(self.inputs)}; {len(inputs)} arrays were given")
        feeds = dict(zip(self.inputs, inputs, strict=True))
        try:
            return cast(Array, self._session.run(None, feeds)[0])
        except Exception as error:  # see above
            given = ", ".join(f"{name}: {x.dtype} {x.shape}" for name, x in feeds.items())
            wanted = ", ".join(f"{item.name}: {item.type} {item.shape}" for item in self._session.get_inputs())
            raise DataError(f"{self.name} cannot run on {given}; it takes {wanted}. {error}") from error

    def predict(self, batches: Sequence[tuple[Array, ...]]) -> Array:
        """Outputs for many batches, as one array."""
        return np.concatenate([self(*inputs) for inputs in batches])


def load(path: str | Path, *, threads: int = 1) -> Session:
    """Open a ``.whit`` file in ONNX Runtime, with so many threads.

    Raises:
        FileError: It is not a whole ``.whit`` file, or holds no network.
    """
    return Session(read(path).onnx(), threads=threads, name=str(path))


def open_onnx(path: str | Path, *, threads: int = 1) -> Session:
    """Open an ``.onnx`` file in ONNX Runtime, with so many threads."""
    if not Path(path).is_file():
        raise FileError(f"there is no file {path}")
    return Session(Path(path).read_bytes(), threads=threads, name=str(path))
