"""A small valid file, and a way to write others that are wrong only where a test wants it."""

import json
import struct
import zlib

import numpy as np
import pytest

from whit import _core
from whit.formats import MXFP4, NVFP4, Codebook, Int
from whit.ledger import Assigned, Axis, Folded, Kept, Ledger, Masked, Rounded, RoundedActivation, RoundedBias, matrix
from whit.quantizers import Nearest
from whit.store import encode, read
from whit.store.container import write_container
from whit.store.decisions import arrays_of


def coded(text):
    """Bytes through the byte model."""
    return _core.encode_bytes(np.frombuffer(text, np.uint8)).tobytes()


class Forger:
    """Writes files and reads them whole, as a stranger's file is read."""

    def __init__(self, path):
        self.path = path

    def write(self, content):
        """Put bytes where the file is."""
        self.path.write_bytes(content)

    def write_header(self, text, *, checksums=(), bodies=b"", version=1, size=None):
        """A file with this header, its checksum right, and a declared size that may be another."""
        self.write_stored(coded(text), len(text) if size is None else size, checksums, bodies, version)

    def write_stored(self, stored, size, checksums=(), bodies=b"", version=1):
        """A file with this header as it is stored."""
        header = stored + struct.pack(f"<{len(checksums)}I", *checksums)
        counts = (zlib.crc32(header), len(stored), size, len(checksums))
        self.write(struct.pack("<8sIIIII", b"\x89whit\r\n\x1a", version, *counts) + header + bodies)

    def write_table(self, header, checksums=(), bodies=b""):
        """A file with this header as JSON, in which NaN and infinity stand as Python writes them."""
        self.write_header(json.dumps(header).encode(), checksums=checksums, bodies=bodies)

    def read_all(self):
        """Everything that can be read of a file."""
        stored = read(self.path)
        ledger = stored.ledger()
        for rounded in ledger.rounded().values():
            rounded.values()
        return stored.about, ledger, stored.onnx()


@pytest.fixture
def forger(tmp_path):
    return Forger(tmp_path / "stranger.whit")


def whole_ledger():
    """One decision of every kind."""
    rng = np.random.default_rng(0)
    grouped = Int(bits=4, per="group", group_size=3)
    plain = Int(bits=8, symmetric=False)
    weights = {"a.weight": (plain, (2, 3, 2)), "b.weight": (grouped, (3, 4))}
    weights |= {"c.weight": (NVFP4, (2, 20)), "d.weight": (Codebook(k=3), (2, 5)), "e.weight": (MXFP4, (2, 3))}
    decisions = [
        Folded(batch_norm="norm", into="a"),
        Kept(
            group="a",
            axes={Axis("a.weight", 0): np.array([0, 2]), Axis("b.weight", 1): np.array([0, 1, 4, 5])},
            groups={"a.weight": 1},
            sizes={"a": {3: 2}},
        ),
        Masked(parameter="b.weight", mask=np.array([[True] * 4, [False] * 4, [True] * 4])),
    ]
    for name, (target, shape) in weights.items():
        codes = Nearest().quantize(matrix(rng.normal(size=shape).astype(np.float32)), target)
        decisions.append(Rounded.of(name, target, shape, codes))
    step = Int(bits=8, symmetric=False, per="tensor")
    weight, activation = (
        decisions[3],
        RoundedActivation(tensor="x", target=step, scale=np.float32(0.5), zero_point=np.int32(3)),
    )
    decisions += [
        activation,
        *(
            RoundedBias.of(name, np.array([0.5, -0.25], np.float32), weight, activation)
            for name in ("a.bias", "c.bias")
        ),
        Assigned(parameter="b.bias", values=rng.normal(size=3).astype(np.float32)),
    ]
    return Ledger().record(*decisions)


WEIGHTS = [2, 22, 21, 21, 0, 6, 1, 1]
"""As what the codes of five weights and the values of three biases stand in the network's graph."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The header, the checksums and the arrays of a valid file with every kind of entry, and all its bytes."""
    path = tmp_path_factory.mktemp("whole") / "whole.whit"
    path.write_bytes(encode(whole_ledger(), None, {"plan": "[[step]]"}))
    container = read(path).container
    roles = [role for table in container.content["decisions"] for role in arrays_of(table)]
    arrays = [(role, container.array(place)) for place, role in enumerate(roles)]
    graph = np.frombuffer(b"\x3a\x02ab" * 8, np.uint8)
    content = {**container.content, "network": {"weights": WEIGHTS}}
    written = write_container(content, [*arrays, ("", graph)])
    _, _, _, stored_size, size, count = struct.unpack_from("<8sIIIII", written)
    end = 28 + stored_size
    header = _core.decode_bytes(np.frombuffer(written[28:end], np.uint8), size).tobytes()
    checksums = struct.unpack_from(f"<{count}I", written, end)
    return json.loads(header), checksums, written[end + 4 * count :], written
