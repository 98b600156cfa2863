"""What a network takes: the bytes of its file and its time in ONNX Runtime, as it is or were some decisions made."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from whit import decide, measure, store
from whit.data import Array
from whit.ledger import Assigned, Decision, Ledger
from whit.network import Network
from whit.runtime import Session
from whit.store import Profile

__all__ = ["Footprint", "settle_"]

_SECONDS = 2.0
"""How long two networks are timed in turns."""


class Footprint:
    """A network as it is, beside what it would be.

    Attributes:
        network: Not changed.
        ledger: What was decided so far.
        inputs: Of the call that is timed.
        about: What the file says about itself.
        profile: How the file's codes are stored.
        threads: Of ONNX Runtime.
    """

    def __init__(
        self,
        network: Network,
        ledger: Ledger,
        inputs: tuple[Array, ...],
        about: Mapping[str, Any],
        profile: Profile,
        threads: int,
    ) -> None:
        self.network = network
        self.ledger = ledger
        self.inputs = inputs
        self.about = about
        self.profile: Profile = profile
        self.threads = threads

    def bytes(self, decisions: Sequence[Decision] = ()) -> int:
        """Of the ``.whit`` file, if these decisions were the last."""
        network, ledger = self._after(decisions)
        return len(store.encode(ledger, _exported(network, ledger), self.about, profile=self.profile))

    def share_of_bytes(self, decisions: Sequence[Decision]) -> float:
        """The file's bytes, after these decisions, over those that it would have now."""
        return self.bytes(decisions) / self._bytes_now

    def share_of_time(self, decisions: Sequence[Decision]) -> float:
        """The time of a call in ONNX Runtime, after these decisions, over that of a call now; measured in turns."""
        after = self._session(*self._after(decisions))
        now, then = measure.latencies([self._session_now, after], self.inputs, seconds=_SECONDS)
        return then.median / now.median

    @cached_property
    def _bytes_now(self) -> int:
        return self.bytes()

    @cached_property
    def _session_now(self) -> Session:
        return self._session(*self._after(()))

    def _session(self, network: Network, ledger: Ledger) -> Session:
        return Session(_exported(network, ledger), threads=self.threads, name="a network that is tried")

    def _after(self, decisions: Sequence[Decision]) -> tuple[Network, Ledger]:
        """The network, if these decisions were the last, and all that it is then."""
        network = self.network.copy()
        network.apply_(decisions)
        ledger = self.ledger.record(*(one for one in decisions if not isinstance(one, Assigned)))
        return network, settle_(network, ledger)


def settle_(network: Network, ledger: Ledger) -> Ledger:
    """The ledger with every value that no decision holds yet, so that it alone rebuilds the network.

    Biases of layers that run in integers are rounded, in the network too.
    """
    biases = decide.biases(network, ledger)
    network.apply_(biases)
    ledger = ledger.record(*biases)
    given = ledger.given()
    rest = {name: np.array(x) for name, x in network.values().items() if name not in given}
    return ledger.record(*(Assigned(parameter=name, values=x) for name, x in rest.items()))


def _exported(network: Network, ledger: Ledger) -> bytes:
    """The bytes of a network's ONNX file."""
    with TemporaryDirectory(prefix="whit-") as folder:
        path = Path(folder) / "model.onnx"
        network.export(path, ledger)
        return path.read_bytes()
