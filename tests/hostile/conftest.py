"""A small valid file, and a way to write others that are wrong only where a test wants it."""

import json
import struct
import zlib

import numpy as np
import pytest

from whit.formats import MXFP4, NVFP4, Codebook, Int
from whit.ledger import Assigned, Axis, Folded, Kept, Ledger, Masked, Rounded, RoundedActivation, RoundedBias, matrix
from whit.quantizers import Nearest
from whit.store import encode, read
from whit.store.container import write_container


class Forger:
    """Writes files and reads them whole, as a stranger's file is read."""

    def __init__(self, path):
        self.path = path

    def write(self, content):
        """Put bytes where the file is."""
        self.path.write_bytes(content)

    def write_header(self, text, *, bodies=b"", version=1, size=None):
        """A file with this header, its checksum right, and a declared size that may be another."""
        stored = zlib.compress(text)
        size = len(text) if size is None else size
        prefix = struct.pack("<8sIIQQ", b"\x89whit\r\n\x1a", version, zlib.crc32(stored), len(stored), size)
        self.write(prefix + stored + bodies)

    def write_table(self, header, bodies=b""):
        """A file with this header as JSON, in which NaN and infinity stand as Python writes them."""
        self.write_header(json.dumps(header).encode(), bodies=bodies)

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
        Assigned(parameter="b.bias", values=np.zeros(3, np.float32)),
    ]
    return Ledger().record(*decisions)


RECIPE = [
    {"from": "codes", "of": "a.weight", "type": 2, "shape": [2, 3, 2]},
    {"from": "scale", "of": "a.weight", "shape": [2]},
    {"from": "zero_point", "of": "a.weight", "type": 2, "shape": [2]},
    {"from": "bias int32", "of": "a.bias"},
    {"from": "bias scale", "of": "a.bias"},
    {"from": "bias", "of": "c.bias"},
    {"from": "codes", "of": "b.weight", "type": 22, "shape": [3, 4]},
    {"from": "assigned", "of": "b.bias"},
    {"from": "codes", "of": "c.weight", "type": 21, "shape": [2, 20]},
    {"from": "levels", "of": "c.weight"},
    {"from": "levels", "of": "d.weight"},
]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The header as JSON and the arrays' bytes of a valid file with every kind of entry, and all its bytes."""
    path = tmp_path_factory.mktemp("whole") / "whole.whit"
    path.write_bytes(encode(whole_ledger(), None, {"plan": "[[step]]"}))
    container = read(path).container
    arrays = [container.array(place) for place in range(len(container.entries))]
    graph = np.frombuffer(b"\x3a\x02ab" * 8, np.uint8)
    content = {**container.content, "network": {"graph": len(arrays), "weights": RECIPE}}
    written = write_container(content, [*arrays, graph])
    (stored_size,) = struct.unpack_from("<Q", written, 16)
    header = json.loads(zlib.decompress(written[32 : 32 + stored_size]))
    return header, written[32 + stored_size :], written
